"""One training step, and evaluation.

Axes: B images of this worker, N images of a split, L labels, D hidden size, M rows of the bank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from sadcl import distributed
from sadcl.config import Config
from sadcl.data.loader import Batch, Loader
from sadcl.losses.criterion import Criterion
from sadcl.losses.sample_to_sample import positive_index
from sadcl.memory import MemoryBank, activated, gather
from sadcl.model import SADCL, Output, Pooled, with_maps
from sadcl.training.optim import average
from sadcl.training.timer import Timer


class Diverged(RuntimeError):
    """A loss that is not finite: the trial has failed, the study goes on."""


CHECK_EVERY = 10
"""Steps from one at which the host waits for a GPU to the next."""


@dataclass
class Training:
    """Everything of one stage that changes from step to step."""

    config: Config
    stage: int
    network: SADCL | Pooled
    model: nn.Module
    """The network, or what is around it: DDP, torch.compile."""
    criterion: Criterion
    optimizer: AdamW
    schedule: OneCycleLR
    ema: AveragedModel | None
    bank: MemoryBank | None
    """None where no contrast takes part."""
    device: torch.device
    step: int = 0
    synchronising: Timer = field(init=False)

    def __post_init__(self) -> None:
        self.synchronising = Timer(self.device)

    @property
    def padded(self) -> bool:
        """Whether the bank is read in sizes known beforehand: where its rows would be waited for, or compiled for anew."""
        return self.device.type != "cpu" or self.config.optim.compile

    def banked(self) -> tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]:
        """The bank's rows, labels and positions; None where there is no bank."""
        return self.bank.read(padded=self.padded) if self.bank is not None else (None, None, None)


def train_step(training: Training, batch: Batch) -> dict[str, Tensor]:
    """Forward, one globally normalised loss, backward, optimiser, EMA, bank and prototypes; gives the global terms."""
    seed_step(training)
    training.optimizer.zero_grad(
        set_to_none=True
    )  # here, so that no gradient lies beside the activations
    rows_MD, labels_M, slots_M = training.banked()
    if training.bank is not None:
        batch = batch._replace(place=batch_positives(batch))
    with autocast(training):
        output = training.model(batch.images, rows_MD)
    criterion = training.criterion
    terms = criterion(
        output, batch.targets, batch.weight, labels_M, slots_M, batch.place, padded=training.padded
    )
    terms.loss.backward()
    check_finite(training, terms.values)
    if training.config.optim.clip_norm is not None:
        nn.utils.clip_grad_norm_(training.network.parameters(), training.config.optim.clip_norm)
    training.optimizer.step()
    training.schedule.step()
    if training.ema is not None:
        average(training.ema, training.network, training.config.optim, training.step)
    values = dict(terms.values)
    if training.bank is not None:
        values["admitted_L"] = update_memory(training, training.bank, output, batch)
    training.step += 1
    return values


@torch.no_grad()
def update_memory(training: Training, bank: MemoryBank, output: Output, batch: Batch) -> Tensor:
    """Admit rows to the bank and to the prototypes (Eq. 5), by this forward's scores; rows admitted a label (L,)."""
    network, config = training.network, training.config
    assert isinstance(network, SADCL)
    assert output.features_BLD is not None
    scores_BL = to_float32(output.logits_BL).sigmoid()
    place_A = batch_positives(batch)
    shared = config.bank.scope == "cluster" and bank.policy != "none"
    own = activated(
        to_float32(output.features_BLD), scores_BL, place_A, batch.position if shared else 0
    )
    settled = config.loss.prototype_weight == 0 or network.prototypes.settled
    # one gather serves both, and only what another worker needs travels
    thresholds = [config.bank.epsilon] * shared + [config.prototype_epsilon] * (not settled)
    rows = own
    with training.synchronising:
        if thresholds and distributed.world_size() > 1:
            rows = gather(own.above(min(thresholds)))
    admitted = rows if shared else own
    bank.update(admitted, config.bank.epsilon)
    if not settled:
        new_L = network.prototypes.update(rows, config.prototype_epsilon)
        network.prototypes.zero_moments(training.optimizer, new_L)
    admitted_L = admitted.per_label(scores_BL.shape[1], config.bank.epsilon)
    return admitted_L if shared else distributed.global_sum(admitted_L)


def shared_state(training: Training) -> dict[str, Tensor]:
    """The tensors that are equal on all workers by promise."""
    state: dict[str, Tensor] = {}
    if training.bank is not None and training.config.bank.scope == "cluster":
        state.update(
            {f"bank.{name}": tensor for name, tensor in training.bank.state_dict().items()}
        )
    if training.bank is not None and isinstance(training.network, SADCL):
        state.update(
            {
                f"prototypes.{n}": tensor
                for n, tensor in training.network.prototypes.state_dict().items()
            }
        )
    return state


def batch_positives(batch: Batch) -> Tensor:
    """Where the targets of real images are 1, flattened; looked for, and waited for, where the loader has not."""
    if batch.place is not None:
        return batch.place
    return positive_index(torch.where((batch.weight > 0)[:, None], batch.targets, -1))


def seed_step(training: Training) -> None:
    """Make dropout a function of (seed, stage, step, worker), so that a resumed run needs no saved random state."""
    text = f"{training.config.seed}/{training.stage}/{training.step}/{distributed.rank()}"
    torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def to_float32(tensor: Tensor) -> Tensor:
    """Detached, in float32 or wider."""
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def autocast(training: Training) -> torch.autocast:
    bf16 = training.config.optim.precision == "bf16"
    return torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=bf16)


def check_finite(training: Training, values: dict[str, Tensor]) -> None:
    """Stop before the optimiser spoils the weights; on a GPU only every tenth step, because looking waits for it.

    All steps are looked at before anything is evaluated or saved. Where it waits, the bank's rows are counted too.
    """
    if training.device.type != "cpu" and training.step % CHECK_EVERY:
        return
    if not bool(torch.isfinite(values["loss"])):
        terms = ", ".join(
            f"{name} = {float(v):.4g}" for name, v in values.items() if name.startswith("loss")
        )
        raise Diverged(
            f"The loss is not finite in stage {training.stage}, step {training.step + 1}: {terms}."
        )
    if training.bank is not None and training.padded:
        training.bank.fill()


@torch.no_grad()
def evaluate(
    network: SADCL | Pooled,
    loader: Loader,
    device: torch.device,
    look: Callable[[Tensor, Tensor], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, L) in float64 and targets (N, L) of a split, each image once, in the set's order.

    In a process group every worker computes its batches and has the whole.

    Args:
        look: takes the positions (B,) and the maps (B, L, H, W) of each batch of this worker; scores do not change by it.
    """
    was_training = network.training
    network.eval()
    labels = len(loader.images.labels)
    logits = [
        to_float32(next(network.parameters()).new_zeros(0, labels))
    ]  # a worker may have no batch at all
    index = [torch.zeros(0, dtype=torch.int64, device=device)]
    for batch in loader.batches(0):
        if look is None:
            output = network(batch.images)
        else:
            output, maps_BLHW = with_maps(network, batch.images)
            look(batch.index, maps_BLHW)
        logits.append(to_float32(output.logits_BL))
        index.append(batch.index)
    network.train(was_training)
    order = distributed.all_gather_rows(torch.cat(index)).argsort()
    logits_NL = distributed.all_gather_rows(torch.cat(logits))[order]
    scores_NL = 1 / (1 + np.exp(-logits_NL.cpu().numpy().astype(np.float64)))
    return scores_NL, loader.images.targets


@torch.no_grad()
def first_prototypes(training: Training, loader: Loader) -> None:
    """Eq. 5 over the whole training set with the network of stage 1, images unchanged."""
    network = training.network
    assert isinstance(network, SADCL)
    network.eval()
    for batch in loader.batches(0):
        output = network(batch.images)
        assert output.features_BLD is not None
        place_A = batch_positives(batch)
        own = activated(
            to_float32(output.features_BLD),
            to_float32(output.logits_BL).sigmoid(),
            place_A,
            batch.position,
        )
        network.prototypes.accumulate(own, training.config.prototype_epsilon)
    for total in (network.prototypes.sum_LD, network.prototypes.count_L):
        total.copy_(distributed.global_sum(total))
    network.prototypes.start_from_accumulated()
    network.train()
