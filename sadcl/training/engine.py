"""One training step, and evaluation.

Axes: B images of this worker, N images of a split, L labels, D hidden size, A positives, H, W a
map's height and width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from sadcl import build, distributed
from sadcl.config import Config
from sadcl.data.loader import Batch
from sadcl.losses.contrast import positive_index
from sadcl.losses.criterion import Criterion
from sadcl.memory import ActivatedRows, Memory, MemoryBank, activated_rows, gather
from sadcl.model import Network, Output
from sadcl.training.compiled_share import CompiledShare
from sadcl.training.optim import update_average
from sadcl.training.timer import Timer


class Diverged(RuntimeError):
    """The loss is not finite: the trial has failed, and the study continues."""


CHECK_EVERY = 10
"""On a GPU the loss is checked every so many steps, because the host waits for it."""


@dataclass
class Training:
    """Everything of one stage that changes from step to step."""

    config: Config
    stage: int
    """1 or 2."""
    network: Network
    model: nn.Module
    """The network, or what wraps it: DDP, torch.compile."""
    criterion: Criterion
    optimizer: Optimizer
    schedule: LRScheduler
    ema: AveragedModel | None
    bank: MemoryBank | None
    """None where no contrast takes part."""
    device: torch.device
    share: CompiledShare | None = None
    """What the network is compiled for; None where it is not compiled."""
    steps_per_epoch: int = 0
    step: int = 0
    """Steps of this stage that are done."""
    sync_timer: Timer = field(init=False)
    """Time that bank and prototypes spend gathering rows."""

    def __post_init__(self) -> None:
        self.sync_timer = Timer(self.device)

    @property
    def padded(self) -> bool:
        """Whether the bank is read with padding rows.

        Their number is then one of few: on a GPU the host would wait for the exact number, and a
        compiled network would be compiled again for each.
        """
        return self.device.type != "cpu" or self.share is not None

    def read_memory(self, batch: Batch) -> Memory | None:
        """Read the bank as it is before the step on a batch; None where there is no bank."""
        if self.bank is None:
            return None
        if self.config.loss.candidates == "all":
            return self.bank.read(padded=self.padded)
        num_labels = batch.targets_BL.shape[1]
        # A bank of this worker alone has the positions of its own images.
        shared = self.config.bank.scope == "cluster"
        index_A = batch.global_positive_index_G if shared else batch.positive_index_A
        assert index_A is not None
        return self.bank.read_matched(
            index_A // num_labels, index_A % num_labels, padded=self.padded
        )


def train_step(
    training: Training, batch: Batch, *, measure_gradients: bool = False
) -> dict[str, Tensor]:
    """Train on one batch; return the global terms of the loss and the rows admitted (L,).

    Args:
        training: the stage.
        batch: this worker's share.
        measure_gradients: also return :func:`gradient_norms`, where a contrast takes part.
    """
    seed_step(training)
    training.optimizer.zero_grad(set_to_none=True)  # before the activations need the memory
    batch = with_positive_index(batch)
    output, batch, memory = forward(training, batch)
    terms = training.criterion(output, batch, memory)
    terms.loss.backward()
    check_finite(training, terms.values)
    values = dict(terms.values)
    if measure_gradients and memory is not None:  # the graph of the step is gone by now
        values |= gradient_norms(training, output, batch, memory)
    drop_gradients_of_backbone(training)
    clip_gradients(training)
    training.optimizer.step()
    training.schedule.step()
    update_ema(training)
    if training.bank is not None:
        values["admitted_L"] = update_memory(training, training.bank, output, batch)
    training.step += 1
    return values


def forward(training: Training, batch: Batch) -> tuple[Output, Batch, Memory | None]:
    """Run the network on a batch that has its indices of positives.

    Returns:
        Its output, the batch, to which a compiled network may have got padding images, and the
        bank's rows that took part.
    """
    share = training.share
    if share is not None:
        batch = share.fill(batch)
    memory = training.read_memory(batch)
    targets_BL = batch.targets_BL if training.network.needs_targets else None
    with autocast(training):
        if share is not None:
            output = share.run(training.model, batch.images_BCHW, memory, targets_BL)
        else:
            output = training.model(batch.inputs, memory, targets_BL)
    return output, batch, memory


@torch.no_grad()
def update_memory(training: Training, bank: MemoryBank, output: Output, batch: Batch) -> Tensor:
    """Admit rows to the bank and to the prototypes (Eq. 5) by the scores of this forward pass.

    Returns:
        (L,) int64, rows admitted to the bank for each label in the global batch.
    """
    network, config = training.network, training.config
    assert network.prototypes is not None
    shared = config.bank.scope == "cluster" and bank.policy != "none"
    local = activated_rows_of(output, batch, batch.first_position if shared else 0)
    update_prototypes = config.loss.prototype_weight > 0 and network.prototypes.needs_rows
    # One gather serves both. Rows below the thresholds travel too: the host would wait for the
    # number of the others.
    rows = local
    with training.sync_timer:
        if (shared or update_prototypes) and distributed.world_size() > 1:
            rows = gather(local, batch.shares.positives if batch.shares is not None else None)
    bank_rows = rows if shared else local
    bank.update(bank_rows, config.bank.epsilon)
    if update_prototypes:
        new_L = network.prototypes.update(rows, config.prototype_epsilon)
        network.prototypes.zero_moments(training.optimizer, new_L)
        if training.ema is not None:  # from a zero row it would take thousands of steps
            average = cast(Network, training.ema.module).prototypes
            assert average is not None
            average.take_rows(network.prototypes, new_L)
    admitted_L = bank_rows.count_per_label(batch.targets_BL.shape[1], config.bank.epsilon)
    return admitted_L if shared else distributed.global_sum(admitted_L)


def gradient_norms(
    training: Training, output: Output, batch: Batch, memory: Memory
) -> dict[str, Tensor]:
    """Measure how strongly each weighted term pulls at the label features of the global batch.

    The heads are computed again from detached features, because a network that is wrapped or
    compiled keeps no graph from its embeddings back to its features. This is a collective call.

    Returns:
        ``gradient_class``, ``gradient_sample`` and ``gradient_prototype``, each the norm of the
        gradient with respect to the (N, L, D) label features of all workers. The first is missing
        for a head that cannot ``classify`` features.
    """
    network = training.network
    assert output.features_BLD is not None
    features_BLD = output.features_BLD.detach().requires_grad_()
    classify = getattr(network.head, "classify", None)
    with autocast(training):
        logits_BL = output.logits_BL.detach() if classify is None else classify(features_BLD)
        again = network.compare(Output(logits_BL, features_BLD), memory)
    weighted = training.criterion(again, batch, memory).weighted
    if classify is None:
        del weighted["class"]
    norms = {}
    for name, part in weighted.items():
        (gradient_BLD,) = torch.autograd.grad(part, features_BLD, retain_graph=True)
        square = distributed.global_sum(gradient_BLD.double().square().sum())
        # Each worker's part is W times its share of the global loss.
        norms[f"gradient_{name}"] = square.sqrt() / distributed.world_size()
    return norms


def shared_state(training: Training) -> dict[str, Tensor]:
    """The tensors that are bit-identical on all workers after every step."""
    state: dict[str, Tensor] = {}
    if training.bank is not None and training.config.bank.scope == "cluster":
        state |= {f"bank.{name}": tensor for name, tensor in training.bank.state_dict().items()}
    if training.bank is not None and training.network.prototypes is not None:
        prototypes = training.network.prototypes.state_dict()
        state |= {f"prototypes.{name}": tensor for name, tensor in prototypes.items()}
    return state


def local_positive_index(batch: Batch) -> Tensor:
    """Return the indices of the positives of real images; it waits where the loader has none."""
    if batch.positive_index_A is not None:
        return batch.positive_index_A
    return positive_index(torch.where((batch.weight_B > 0)[:, None], batch.targets_BL, -1))


def with_positive_index(batch: Batch) -> Batch:
    """Complete a batch that no loader has made; this is a collective call then."""
    index_A, index_G, shares = (
        local_positive_index(batch),
        batch.global_positive_index_G,
        batch.shares,
    )
    if shares is None:
        counts = (len(batch.targets_BL), len(index_A))
        shares = distributed.Shares(
            *(distributed.all_gather_sizes(count, index_A.device) for count in counts)
        )
    if index_G is None:
        index_G = distributed.all_gather_rows(
            index_A + batch.first_position * batch.targets_BL.shape[1], shares.positives
        )
    return batch._replace(positive_index_A=index_A, global_positive_index_G=index_G, shares=shares)


def seed_step(training: Training) -> None:
    """Make dropout a function of (seed, stage, step, worker), so that no state need be saved."""
    text = f"{training.config.seed}/{training.stage}/{training.step}/{distributed.rank()}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def to_float32(tensor: Tensor) -> Tensor:
    """Detach a tensor, in float32 or wider."""
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def autocast(training: Training) -> torch.autocast:
    """Return the context of the forward pass, as :func:`sadcl.build.autocast` does."""
    return build.autocast(training.config, training.device)


def drop_gradients_of_backbone(training: Training) -> None:
    """Let the optimiser pass over the backbone while only the rest of the network is to learn.

    So it neither decays these weights nor averages gradients of the time before.
    """
    config = training.config
    epochs = (config.stage1 if training.stage == 1 else config.stage2).head_epochs
    if training.step < epochs * training.steps_per_epoch:
        for parameter in training.network.backbone.parameters():
            parameter.grad = None


def clip_gradients(training: Training) -> None:
    """Scale the gradient to the configured norm at most, where there is one."""
    if training.config.optim.clip_norm is not None:
        nn.utils.clip_grad_norm_(training.network.parameters(), training.config.optim.clip_norm)


def update_ema(training: Training) -> None:
    """Take this step's weights into their moving average, where there is one."""
    if training.ema is not None:
        update_average(training.ema, training.network, training.config.optim, training.step)


def check_finite(training: Training, values: dict[str, Tensor]) -> None:
    """Stop before the optimiser spoils the weights.

    On a GPU only every tenth step is checked, because the host waits for the loss; the loop checks
    all steps before anything is evaluated or saved. Where the host waits, it counts the bank's
    valid rows too.

    Raises:
        Diverged: for a loss that is not finite.
    """
    if training.device.type != "cpu" and training.step % CHECK_EVERY:
        return
    if not bool(torch.isfinite(values["loss"])):
        terms = ", ".join(
            f"{name} = {float(value):.4g}"
            for name, value in values.items()
            if name.startswith("loss")
        )
        raise Diverged(
            f"The loss is not finite in stage {training.stage}, step {training.step + 1}: {terms}."
        )
    if training.bank is not None and training.padded:
        training.bank.count_valid()


def activated_rows_of(output: Output, batch: Batch, first_position: int) -> ActivatedRows:
    """This worker's activated rows in float32 or wider, whatever the precision of the step."""
    assert output.features_BLD is not None
    return activated_rows(
        to_float32(output.features_BLD),
        to_float32(output.logits_BL).sigmoid(),
        local_positive_index(batch),
        first_position,
    )
