"""The kinds of files that a network can be exported to, each as bytes and as it runs from them.

Axes: B images of a batch, L labels, S side of the input in pixels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from sadcl import build
from sadcl.config import Config
from sadcl.errors import UserError, first_line_of
from sadcl.inference.export.network import INPUT, OUTPUTS, ExportedNetwork
from sadcl.inference.predictor import Predictor

DESCRIPTION = "description.json"
"""The extra file in a torch.export archive that holds the description."""
MAX_ONNX_BYTES = 2_000_000_000
"""Weights that fit into one ONNX file, which is a protocol buffer and ends at 2^31 bytes."""
_Operator = type(torch.ops.aten.relu.default)

Run = Callable[[Tensor], dict[str, Tensor]]
"""Turns normalised images (B, 3, S, S) into the outputs by name, each (B, L)."""


class Encoded(NamedTuple):
    """The content of a file."""

    data: bytes
    facts: dict[str, Any]
    """What only the encoder knows, for the JSON."""


class Format(NamedTuple):
    """A kind of file."""

    name: str
    """In messages."""
    ending: str
    encode: Callable[[Predictor, dict[str, str]], Encoded]
    """Makes the file of a predictor on the CPU, with metadata inside."""
    open: Callable[[bytes], Run]
    """Runs the file, of which it knows nothing else."""
    packages: tuple[str, ...] = ()
    """Packages of the extra ``export`` that it needs."""
    runtime: str = "torch"
    """The package that runs the file."""


def check_installed(kind: str) -> None:
    """Raise UserError if a package is missing that a kind of file needs."""
    form = KINDS[kind]
    missing = [name for name in form.packages if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{form.name} needs {' and '.join(missing)}, which {verb} not installed: "
            'pip install "sadcl[export]"'
        )


def _encode_onnx(predictor: Predictor, metadata: dict[str, str]) -> Encoded:
    network = ExportedNetwork(predictor.network)
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise UserError(
            f"The weights take {size / 1e9:.1f} GB and an ONNX file holds at most "
            f"{MAX_ONNX_BYTES / 1e9:.0f} GB: export them with --torch-export or --safetensors."
        )
    with _exporting(predictor, "to ONNX", "--torch-export, --safetensors"):
        program = torch.onnx.export(
            _capture(network, predictor),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    _rename_batch(model.graph)
    # the exporter notes the source files of this machine at every node
    for part in (model.graph, *model.graph.node, *model.functions):
        del part.metadata_props[:]
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    return Encoded(model.SerializeToString(), {"opset": opsets["ai.onnx"]})


def _open_onnx(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot open the exported network: "
            f"{_first_line(error)}"
        ) from None

    def run(images: Tensor) -> dict[str, Tensor]:
        outputs = session.run(list(OUTPUTS), {INPUT: images.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(OUTPUTS, outputs, strict=True)}

    return run


def _encode_torch(predictor: Predictor, metadata: dict[str, str]) -> Encoded:
    network = ExportedNetwork(predictor.network)
    with _exporting(predictor, "by torch.export", "--safetensors"):
        program = _capture(network, predictor)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source files of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DESCRIPTION: metadata["description"]})
    return Encoded(buffer.getvalue(), {"extra_file": DESCRIPTION})


def _open_torch(data: bytes) -> Run:
    with _quiet():
        module: Run = torch.export.load(io.BytesIO(data)).module()
    return module


def _encode_safetensors(predictor: Predictor, metadata: dict[str, str]) -> Encoded:
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in predictor.network.state_dict().items()
    }
    return Encoded(safetensors.torch.save(tensors, metadata), {})


def _open_safetensors(data: bytes) -> Run:
    length = int.from_bytes(data[:8], "little")
    facts = json.loads(data[8 : 8 + length])["__metadata__"]
    config = Config.parse(json.loads(facts["config"]))
    network = build.model(config, len(json.loads(facts["labels"])), pretrained=False)
    network.load_state_dict(safetensors.torch.load(data))
    return ExportedNetwork(network)


KINDS = {
    "onnx": Format(
        "ONNX",
        ".onnx",
        _encode_onnx,
        _open_onnx,
        ("onnx", "onnxscript", "onnxruntime"),
        "onnxruntime",
    ),
    "safetensors": Format("safetensors", ".safetensors", _encode_safetensors, _open_safetensors),
    "torch-export": Format("torch.export", ".pt2", _encode_torch, _open_torch),
}
"""Kinds of files by the flag of ``sadcl export`` that asks for them."""


def _capture(network: ExportedNetwork, predictor: Predictor) -> torch.export.ExportedProgram:
    """Record the operators of a network, for batches of any number of images."""
    side = predictor.config.data.image_size
    images = torch.zeros(2, 3, side, side)  # a batch of one would be taken for a constant
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)


def _rename_batch(graph: Any) -> None:
    """Call the number of images ``batch`` in an ONNX graph, where it has a symbol's name."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{symbol}\b", "batch", dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what exporters say about their own work, such as whole graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    unread = io.StringIO()
    try:
        with contextlib.redirect_stdout(unread), contextlib.redirect_stderr(unread):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _exporting(predictor: Predictor, how: str, instead: str) -> Iterator[None]:
    """Turn what an exporter raises in the block, which can be anything, into one paragraph.

    Args:
        predictor: of the network.
        how: what fails.
        instead: flags of formats that may work.

    Raises:
        UserError: with the backbone, and with the operator if one is to blame.
    """
    try:
        with _quiet(), torch.no_grad():
            yield
    except Exception as error:
        operator, cause = _operator_and_cause(error)
        reason = _first_line(cause)
        if operator is not None:
            reason = f"the operator {operator} cannot be translated ({reason})"
        raise UserError(
            f"The network with model.backbone = {predictor.config.model.backbone!r} cannot be "
            f"exported {how}: {reason}. Try {instead} or another backbone."
        ) from None


def _operator_and_cause(error: BaseException) -> tuple[str | None, BaseException]:
    """Return the operator that an exporter was at when it failed, and the first of its errors.

    Their messages are not an interface; the innermost frame that has an operator is.
    """
    operator = None
    while True:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for value in frame.f_locals.values():
                target: Any = value.target if isinstance(value, torch.fx.Node) else value
                if isinstance(target, _Operator):
                    operator = str(target)
        earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if earlier is None:
            return operator, error
        error = earlier


def _first_line(error: BaseException) -> str:
    line = first_line_of(error).rstrip(".:")
    return line if len(line) <= 200 else f"{line[:197]}..."
