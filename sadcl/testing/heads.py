"""What every head keeps to, whatever it computes.

Axes: B images, C channels, H, W height and width of a feature map, L labels, D size of a feature.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sadcl import distributed
from sadcl.model.check import expected_shapes
from sadcl.model.heads.head import HeadOutput, Task
from sadcl.testing.checks import attempt, check_arguments, close, require
from sadcl.testing.head_case import HeadCase
from sadcl.testing.workers import ask_both

_SMALLEST = 1e-9
"""A gradient below this share of the largest one is rounding."""


def check_head(
    head: Callable[..., nn.Module], case: HeadCase | None = None, /, **arguments: Any
) -> None:
    """Check a head of your own against :class:`sadcl.model.Head`, in one line of a test::

        def test_my_head():
            sadcl.testing.check_head(Attention, dim=16)

    It is tried in float64 on small random maps: shapes and types of all it returns, also for one
    label and one image; gradients that reach every parameter; an image alone; a state that holds
    all; float32 under autocast; two workers; the compiler; the export.

    Args:
        head: the class.
        case: what it is tried on, and in what it differs on purpose; None is ``HeadCase()``.
        **arguments: its own; small ones make the check fast.

    Raises:
        AssertionError: with what is wrong and what to do.
    """
    trial = _Trial(head, case or HeadCase(), check_arguments(head, arguments, 1, ()))
    trial.check_shapes()
    trial.check_seed()
    trial.check_gradients()
    trial.check_alone()
    trial.check_state()
    trial.check_autocast()
    trial.check_compiler()
    trial.check_export()
    trial.check_workers()


class _Trial(NamedTuple):
    head: Callable[..., nn.Module]
    case: HeadCase
    arguments: Mapping[str, Any]

    def build(self, num_labels: int | None = None, seed: int = 0, restored: bool = False) -> Any:
        """Build the head in float64 from a seed."""
        case, count = self.case, num_labels or self.case.num_labels
        channels = (case.channels,) * len(getattr(self.head, "feature_maps", (-1,)))
        counts_LL = torch.full((count, count), 25.0) + 25 * torch.eye(count)
        labels = tuple(f"label {i}" for i in range(count))
        counts_LL = counts_LL.double() * (not restored)
        torch.manual_seed(seed)
        with attempt(self.head, f"for L = {count}", "It is built as Head(task, **arguments)"):
            built = self.head(Task(channels, labels, counts_LL, restored), **self.arguments)
        require(isinstance(built, nn.Module), self.head, "is no nn.Module", "Derive it from it")
        return built.double()

    def filled(self, seed: int = 5) -> Any:
        """Build the head with parameters and statistics that are not 0 or 1 anywhere."""
        head, generator = self.build(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in head.state_dict().items():
                if tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                    positive = "running_var" in name
                    tensor.copy_(1 + 0.3 * noise.tanh() if positive else 0.4 * noise)
        return head

    def maps(self, images: int, side: int | None = None) -> tuple[Tensor, ...]:
        generator, count = torch.Generator().manual_seed(7), self.map_count
        sides = [(side or self.case.side) * 2**n for n in reversed(range(count))]
        shapes = [(images, self.case.channels, each, each) for each in sides]
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)

    @property
    def map_count(self) -> int:
        return len(getattr(self.head, "feature_maps", (-1,)))

    def targets(self, head: nn.Module, images: int) -> dict[str, Tensor]:
        if not getattr(head, "needs_targets", False):
            return {}
        shape = images, self.case.num_labels
        positions = torch.arange(images * self.case.num_labels).reshape(shape)
        return {"targets_BL": (positions % 2).to(torch.int8)}

    def check_shapes(self) -> None:
        for count in dict.fromkeys((self.case.num_labels, 1)):
            for images, side in ((3, self.case.side), (1, 1)):
                head, inputs = self.build(count).eval(), self.maps(images, side)
                with (
                    torch.no_grad(),
                    attempt(
                        self.head,
                        f"where B = {images}, L = {count} and H = W = {side}",
                        "All of these occur",
                    ),
                ):
                    output = head(*inputs)
                    self._check_output(head, output, images, count)
                    if (show := getattr(head, "attention_maps", None)) is not None:
                        self._check_maps(show(*inputs), (images, count), side)

    def _check_output(self, head: nn.Module, output: Any, images: int, count: int) -> None:
        require(
            isinstance(output, HeadOutput),
            self.head,
            f"returns {type(output).__name__}",
            "Return sadcl.model.HeadOutput(logits_BL)",
        )
        size = getattr(head, "feature_size", None)
        require(
            (output.features_BLD is None) == (size is None),
            self.head,
            f"has feature_size = {size}, but returns "
            f"{'no ' * (output.features_BLD is None)}features_BLD",
            "Set self.feature_size to D where it returns them, and not otherwise",
        )
        for name, part, shape in expected_shapes(output, images, count, size):
            require(
                tuple(part.shape) == shape,
                self.head,
                f"returns {name} of the shape {tuple(part.shape)}",
                f"It must be {shape} where B = {images} and L = {count}",
            )
            require(
                part.dtype == torch.float64,
                self.head,
                f"returns {name} in {part.dtype} for maps in float64",
                "Compute in the type of the maps, or in float32 where they are in half precision",
            )
            require(
                bool(part.isfinite().all()),
                self.head,
                f"returns {name} that is not finite",
                "Look for a division by zero or a logarithm",
            )

    def _check_maps(self, maps_BLHW: Tensor, shape: tuple[int, int], side: int) -> None:
        require(
            tuple(maps_BLHW.shape) == (*shape, side, side),
            self.head,
            f"has attention_maps of the shape {tuple(maps_BLHW.shape)}",
            f"They must be (B, L, H, W) = {(*shape, side, side)}, as large as the last feature map",
        )

    def check_seed(self) -> None:
        first, second = self.build(), self.build()
        for (name, left), right in zip(
            first.state_dict().items(), second.state_dict().values(), strict=True
        ):
            require(
                torch.equal(left, right),
                self.head,
                f"starts with another {name} when it is built again from the same seed",
                "Draw initial values from torch's own generator, so that all workers have the same",
            )
        with torch.no_grad():
            inputs, head = self.maps(2), first.eval()
            require(
                torch.equal(head(*inputs).logits_BL, head(*inputs).logits_BL),
                self.head,
                "gives other logits for the same maps in evaluation mode",
                "Draw random numbers in training only",
            )

    def check_gradients(self) -> None:
        """In training or in evaluation: a batch norm takes away a bias before it in training."""
        sizes: dict[str, float] = {}
        for is_training in (True, False):
            head = self.filled().train(is_training)
            inputs = [part.requires_grad_() for part in self.maps(4)]
            targets = self.targets(head, 4) if is_training else {}
            with attempt(self.head, "in the backward pass", "See the error"):
                output = head(*inputs, **targets)
                (sum(p.square().sum() for p in (output.logits_BL, *output.auxiliary_BL))).backward()
            leaves = {f"map {i}": part for i, part in enumerate(inputs)}
            for name, leaf in {**dict(head.named_parameters()), **leaves}.items():
                if leaf.requires_grad:
                    size = 0.0 if leaf.grad is None else float(leaf.grad.abs().max())
                    sizes[name] = max(size, sizes.get(name, 0.0))
                require(
                    not is_training or leaf.grad is not None or not leaf.requires_grad,
                    self.head,
                    f"does not use {name} in training",
                    "Several workers would wait for its gradient for ever: remove it or use it",
                )
            require(
                all(part._version == 0 for part in inputs),
                self.head,
                "changes a feature map in place",
                "Write map_BCHW = map_BCHW + ... instead of +=",
            )
        largest = max(sizes.values())
        silent = [name for name, size in sizes.items() if size <= _SMALLEST * largest]
        silent = [name for name in silent if not name.endswith(self.case.without_gradient or "\0")]
        require(
            not silent,
            self.head,
            f"gives no gradient to {', '.join(silent)}",
            "No logit depends on it: use it, remove it, or name it in HeadCase.without_gradient",
        )
        with attempt(
            self.head, "in training on one image", "The last batch of a worker may be one"
        ):
            head = self.build().train()
            logits_BL = head(*self.maps(1), **self.targets(head, 1)).logits_BL
            logits_BL.sum().backward()

    @torch.no_grad()
    def check_alone(self) -> None:
        head, inputs = self.filled().eval(), self.maps(3)
        together = head(*inputs)
        alone = [head(*(part[i : i + 1] for part in inputs)) for i in range(3)]
        logits_BL = torch.cat([output.logits_BL for output in alone])
        if self.case.of_batch:
            require(
                not close(logits_BL, together.logits_BL),
                self.head,
                "gives an image alone the same logits",
                "Leave out HeadCase.of_batch",
            )
            return
        parts = {"logits_BL": (logits_BL, together.logits_BL)}
        if together.features_BLD is not None:
            features_BLD = torch.cat([output.features_BLD for output in alone])
            parts["features_BLD"] = features_BLD, together.features_BLD
        if (show := getattr(head, "attention_maps", None)) is not None:
            shown = [show(*(part[i : i + 1] for part in inputs)) for i in range(3)]
            parts["attention_maps"] = torch.cat(shown), show(*inputs)
        for name, (left, right) in parts.items():
            require(
                close(left, right),
                self.head,
                f"gives an image alone other {name} than among others in evaluation mode",
                "Mix along channels, cells or labels, and not along images",
            )

    @torch.no_grad()
    def check_state(self) -> None:
        first, second = self.filled().eval(), self.build(seed=1, restored=True).eval()
        inputs = self.maps(2)
        with attempt(
            self.head,
            "to load the state of another one that was built for other counts",
            "Keep what comes from task.co_occurrence_LL in a buffer of a fixed shape",
        ):
            second.load_state_dict(first.state_dict())
        require(
            torch.equal(second(*inputs).logits_BL, first(*inputs).logits_BL),
            self.head,
            "gives other logits after loading its state",
            "Keep all that it computes with in parameters or buffers (register_buffer)",
        )

    @torch.no_grad()
    def check_autocast(self) -> None:
        head, inputs = self.build().float().eval(), [part.float() for part in self.maps(3)]
        exact = head(*inputs)
        rounded = [part.bfloat16() for part in inputs]
        with attempt(self.head, "under autocast", "optim.precision = 'bf16' needs it"):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = head(*rounded)
                show = getattr(head, "attention_maps", None)
                shown = None if show is None else show(*rounded)
        parts = {"logits_BL": output.logits_BL, "features_BLD": output.features_BLD}
        for name, part in {**parts, "attention_maps": shown}.items():
            require(
                part is None or part.dtype == torch.float32,
                self.head,
                f"returns {name} in {getattr(part, 'dtype', None)} under autocast",
                "Compute the last product in float32: with torch.autocast(device, enabled=False)",
            )
        require(
            bool((output.logits_BL.bfloat16().float() != output.logits_BL).any()),
            self.head,
            "returns logits that have been in bfloat16 under autocast",
            "Compute the last product in float32: converting its result is too late",
        )
        require(
            close(output.logits_BL, exact.logits_BL, 0.05),
            self.head,
            "gives logits under autocast that are more than 5 % off",
            "Compute sums and exponentials in float32",
        )

    def check_compiler(self) -> None:
        torch.compiler.reset()
        for is_training in (True, False):
            head, results = self.filled().train(is_training), []
            compiled = torch.compile(
                copy.deepcopy(head), fullgraph=self.case.one_graph, backend="eager"
            )
            with attempt(
                self.head,
                "in torch.compile",
                "Leave out .item(), numpy and loops over values, or set HeadCase.one_graph = False",
            ):
                for module in (head, compiled):
                    inputs = [part.requires_grad_() for part in self.maps(3)]
                    targets = self.targets(head, 3) if is_training else {}
                    torch.manual_seed(0)
                    logits_BL = module(*inputs, **targets).logits_BL
                    results.append((logits_BL, *torch.autograd.grad(logits_BL.sum(), inputs)))
            require(
                all(map(close, *results)),
                self.head,
                "gives other logits or gradients when it is compiled",
                "optim.compile would change its results",
            )

    def check_export(self) -> None:
        if not self.case.exported:
            return
        head, inputs = self.filled().eval().requires_grad_(False), self.maps(3)
        shapes = (tuple({0: torch.export.Dim("batch")} for _ in inputs),)
        with attempt(
            self.head,
            "in torch.export for any number of images",
            "Take sizes from shapes and decide nothing by values, or set HeadCase.exported = False",
        ):
            program = torch.export.export(
                _Logits(head), (inputs,), dynamic_shapes=shapes, strict=False
            )
            logits_BL = program.module()(self.maps(2))
        require(
            close(logits_BL, head(*self.maps(2)).logits_BL),
            self.head,
            "gives other logits when it is exported",
            "See the program that torch.export writes",
        )

    def check_workers(self) -> None:
        if self.case.of_batch:
            return
        whole = _gradients(*self)
        for rank, part in enumerate(ask_both(_gradients, *self)):
            for name, gradient in whole.items():
                require(
                    close(part[name], gradient),
                    self.head,
                    f"gives {name} another gradient on two workers than on one (rank {rank})",
                    "Let no image's result depend on the others or on the worker",
                )


class _Logits(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        logits_BL: Tensor = self.head(*maps).logits_BL
        return logits_BL


def _gradients(
    head: Callable[..., nn.Module], case: HeadCase, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the gradient of a sum over the images of all workers, in evaluation mode."""
    trial = _Trial(head, case, arguments)
    built = trial.filled().eval()
    start, stop = distributed.split(4, distributed.rank(), distributed.world_size())
    output = built(*(part[start:stop] for part in trial.maps(4)))
    output.logits_BL.square().sum().backward()
    gradients = {name: p.grad for name, p in built.named_parameters() if p.grad is not None}
    return {name: distributed.global_sum(gradient) for name, gradient in gradients.items()}
