"""Runs a training step on a GPU that does not exist, and counts what it would do there.

Under ``FakeTensorMode`` a tensor has a shape, a type and a device, but no values, so that a step of
64 workers with ResNet-101 takes seconds on a CPU. What depends on values is decided as follows: a
condition holds, every row that might be selected is, and each worker has as many rows as this one.

Four things differ from a GPU. Gradients flow by :func:`backward`, because torch's own engine wants
a driver. Attention is computed by its plain formula, because the choice of a fused kernel wants one
too. DDP's all-reduce of the gradients is left out: :func:`gradient_bytes` is what it carries. And a
kernel is one call of ATen that computes, although ATen and cuDNN split some calls into several and
one call for many tensors into a few.
"""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sadcl
from sadcl import distributed
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.training import ddp, engine, setup

GPU = torch.device("cuda:0")
SOURCES = str(Path(sadcl.__file__).parent)
LAUNCHES_NOTHING = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"),
    *("_unsafe_view", "lift_fresh", "set_", "_record_function_enter_new", "_record_function_exit"),
}
"""Calls of ATen that neither compute nor return a view."""
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "item"),
}
"""Calls of ATen for which the host waits, because a size or a number of Python depends on them."""
TAKES_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
SENT = {
    "allreduce_": lambda size, workers: 2 * size * (workers - 1) / workers,
    "reduce_": lambda size, workers: size,
    "broadcast_": lambda size, workers: size,
    "allgather_": lambda size, workers: size * (workers - 1),
    "_allgather_base_": lambda size, workers: size * (workers - 1),
    "alltoall_base_": lambda size, workers: size * (workers - 1) / workers,
    "_reduce_scatter_base_": lambda size, workers: size * (workers - 1) / workers,
    "barrier": lambda size, workers: 0,
}
"""Bytes that a worker sends in a collective call of so many bytes; a ring for sums and gathers."""
HAS_OUTPUT_FIRST = {"allgather_", "_allgather_base_", "alltoall_base_", "_reduce_scatter_base_"}


@dataclass
class Counts:
    """What a step does; each place is ``file:line`` of sadcl with the call."""

    kernels: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    """Places where the host waits for the GPU."""
    blocking_copies: Counter[str] = field(default_factory=Counter)
    """Places where it copies to the GPU from memory that is not pinned, or waits for the copy."""
    host_tensors: Counter[str] = field(default_factory=Counter)
    """Places where a kernel gets a tensor of the host."""
    collectives: Counter[str] = field(default_factory=Counter)
    """Number of collective calls by kind, without DDP's."""
    sent_bytes: float = 0.0
    """Bytes that this worker sends in them."""


class Recorder(TorchDispatchMode):
    """Counts, and decides what depends on values."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.workers, self.counts = workers, Counts()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if function.namespace == "c10d":
            self._count_collective(name, args)
            return function(*args, **kwargs)
        on_gpu = any(tensor.device.type == "cuda" for tensor in inputs)
        if name in WAITS and isinstance(args[0], FakeTensor):
            if on_gpu:
                self.counts.waits[place(name)] += 1
                self.counts.kernels += name != "_local_scalar_dense"
            return decide(function, name, args, kwargs)
        if on_gpu and name in TAKES_INDICES:
            args = (args[0], self._integers(name, args[1]), *args[2:])
        result = function(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if on_gpu or any(tensor.device.type == "cuda" for tensor in outputs):
            self._count_kernel(function, name, inputs, outputs, kwargs, args)
        return result

    def _integers(self, name: str, indices: list[Tensor | None]) -> list[Tensor | None]:
        """Replace masks by indices, as ATen does; the host waits for each."""
        whole: list[Tensor | None] = []
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.counts.waits[place(f"{name} with a mask")] += 1
                whole += [index.new_empty(index.numel(), dtype=torch.int64)] * index.dim()
            else:
                whole.append(index)
        return whole

    def _count_collective(self, name: str, args: Any) -> None:
        tensors = args[1] if name in HAS_OUTPUT_FIRST else args[0]
        tensors = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
        self.counts.collectives[name.strip("_")] += 1
        self.counts.sent_bytes += SENT[name](sum(each.nbytes for each in tensors), self.workers)

    def _count_kernel(
        self,
        function: Any,
        name: str,
        inputs: list[Tensor],
        outputs: list[Tensor],
        kwargs: Any,
        args: Any,
    ) -> None:
        if function.is_view or name in LAUNCHES_NOTHING or function.namespace != "aten":
            return
        counts = self.counts
        if name not in ("_to_copy", "copy_"):
            counts.kernels += 1
            if any(tensor.device.type == "cpu" for tensor in inputs):
                counts.host_tensors[place(name)] += 1
            return
        source, target = inputs[-1].device.type, outputs[0].device.type
        asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if source == target:
            counts.kernels += 1
        elif target == "cpu":
            counts.waits[place("copy to the host")] += 1
        elif not asynchronous:
            counts.blocking_copies[place("copy to the GPU")] += 1


def place(call: str) -> str:
    """Return the line of sadcl that made a call, or that of whoever called from outside."""
    frames = [each for each in traceback.extract_stack() if "torch" not in each.filename]
    inside = [each for each in frames if each.filename.startswith(SOURCES)]
    frame = (inside or frames[:-3])[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {call}"


def decide(function: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Return what a call that waits gives where conditions hold and every row is selected."""
    tensor = args[0]
    if name in ("equal", "is_nonzero"):
        return True
    if name == "_local_scalar_dense":
        kind = bool if tensor.dtype == torch.bool else float if tensor.is_floating_point() else int
        return kind(1)
    if name == "nonzero":
        return tensor.new_empty(tensor.numel(), tensor.dim(), dtype=torch.int64)
    if name == "masked_select":
        return tensor.new_empty(tensor.numel())
    return function(*args, **kwargs)


@torch.no_grad()
def backward(root: Tensor) -> None:
    """Compute the gradients of a scalar as torch's engine does, without a driver."""
    gradients = {root.grad_fn: {0: torch.ones_like(root)}}
    for node in _in_order(root.grad_fn):
        received = gradients.pop(node, {})
        if not received:
            continue
        if type(node).__name__ == "AccumulateGrad":
            leaf, gradient = node.variable, received[0]
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            continue
        for (child, number), gradient in _apply_node(node, received):
            if child is None or gradient is None:
                continue
            wanted = child._input_metadata[number]
            gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
            parts = gradients.setdefault(child, {})
            parts[number] = parts[number] + gradient if number in parts else gradient


def _in_order(root: Any) -> list[Any]:
    """Return the nodes of a graph, each before those that it hands gradients to."""
    order: list[Any] = []
    seen, stack = {root}, [(root, iter(root.next_functions))]
    while stack:
        node, children = stack[-1]
        for child, _ in children:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append((child, iter(child.next_functions)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


def _apply_node(
    node: Any, received: dict[int, Tensor]
) -> Iterator[tuple[tuple[Any, int], Tensor | None]]:
    """Return each node that a node hands a gradient to, with the number of its input."""
    metadata = node._input_metadata
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        result = node(*(received.get(number) for number in range(len(metadata))))
        return zip(
            node.next_functions, result if isinstance(result, tuple) else (result,), strict=True
        )
    # A function that is written in Python gets zeros where no gradient comes, and returns None for
    # what is no tensor, which has no node.
    result = node.apply(
        *(
            received[number]
            if number in received
            else torch.zeros(each.shape, dtype=each.dtype, device=each.device)
            for number, each in enumerate(metadata)
        )
    )
    result = result if isinstance(result, tuple) else (result,)
    children = [each for each in node.next_functions if each[0] is not None]
    return zip(children, itertools.compress(result, node.needs_input_grad), strict=True)


def prepare(config: Config, labels: int) -> engine.Training:
    """Prepare stage 2 as it is in the middle of an epoch: every row of the bank is valid."""
    training = setup.prepare(2, config, tuple(map(str, range(labels))), GPU, steps=1000)
    training.network.train()
    assert training.bank is not None
    training.bank.max_valid = training.bank.valid_KL.numel()
    return training


def batch(training: engine.Training, images: int, positives: int, workers: int) -> Batch:
    """Return this worker's share of a batch, in which each worker has as many positives."""
    labels, side = training.bank.valid_KL.shape[1], training.config.data.image_size
    return Batch(
        torch.zeros(images, 3, side, side, device=GPU),
        torch.zeros(images, labels, dtype=torch.int8, device=GPU),
        torch.ones(images, device=GPU),
        torch.arange(images, device=GPU),
        0,
        torch.zeros(positives, dtype=torch.int64, device=GPU),
        torch.zeros(positives * workers, dtype=torch.int64, device=GPU),
    )


def count_step(training: engine.Training, batch: Batch, workers: int) -> tuple[Counts, Counts]:
    """Count an ordinary step, and the one before it, which checks whether the loss is finite.

    The other figures of that one are no ordinary step's: it makes the optimiser's state.
    """
    with Recorder(workers) as recorder:
        counts = []
        for step in (engine.CHECK_EVERY, engine.CHECK_EVERY + 1):
            recorder.counts, training.step = Counts(), step
            engine.train_step(training, batch)
            counts.append(recorder.counts)
    return counts[1], counts[0]


def gradient_bytes(training: engine.Training, workers: int) -> float:
    """Return the bytes that a worker sends in DDP's all-reduce of the gradients of a step."""
    parameters = [each for each in training.network.parameters() if each.requires_grad]
    return SENT["allreduce_"](sum(each.nbytes for each in parameters), workers)


def _move(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Do as ``Module._apply``, which cannot move fake tensors to another device."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                moved = change(parameter.detach())
                each._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = change(buffer)
    return module


def _copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """Do as ``Tensor.__deepcopy__``, which reads and writes memory that a fake tensor lacks."""
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
    return memo[id(tensor)]


@contextlib.contextmanager
def fake_gpu(workers: int) -> Iterator[None]:
    """Stand for the first of so many workers with a GPU each; in the block all tensors are fake."""
    patches = [
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        mock.patch.object(torch.cuda, "reset_peak_memory_stats"),
        # Copies to the GPU are seen then, also where there is a real one.
        mock.patch.object(FakeTensorMode, "avoid_device_init", True),
        mock.patch.object(nn.Module, "_apply", _move),
        mock.patch.object(FakeTensor, "__deepcopy__", _copy, create=True),
        mock.patch.object(Tensor, "backward", backward),
        mock.patch.object(ddp, "wrap", lambda network, device: network),
        mock.patch.object(engine, "Timer", return_value=contextlib.nullcontext()),
        *(
            mock.patch.object(module, f"{verb}_rng_state")
            for module in (torch, torch.random)
            for verb in ("get", "set")
        ),
    ]
    if hasattr(distributed, "all_gather_sizes"):
        patches.append(mock.patch.object(distributed, "all_gather_sizes", _sizes))
    if workers > 1:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=workers)
    try:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            yield
    finally:
        if workers > 1:
            dist.destroy_process_group()


def _sizes(count: int, device: torch.device) -> list[int]:
    """Do as ``distributed.all_gather_sizes``; every worker has as many rows."""
    if distributed.world_size() == 1:
        return [count]
    sizes = torch.zeros(distributed.world_size(), dtype=torch.int64, device=device)
    dist.all_reduce(sizes)
    sizes[0].item()
    return [count] * distributed.world_size()
