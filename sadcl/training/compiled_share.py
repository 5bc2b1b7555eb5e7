"""One shape for what a compiled network is given in every step.

torch.compile would compile again for another number of images, and from then on run a slower graph
for any number of them. Two things change from step to step:

* an epoch's last batch may be incomplete, and then its shares are smaller, or empty;
* the memory bank's rows change in number: they are marked as such before the first step, so that
  the first graph is for any number.

So a network is compiled once a stage. One shape is also what CUDA graphs need
(``mode="reduce-overhead"``), one for each number of rows; nobody has measured or tested that here.

Axes: B images of this worker, C colour channels (3), H, W their height and width, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sadcl import distributed
from sadcl.data.loader import Batch
from sadcl.memory import Memory
from sadcl.model import Output


@dataclass(frozen=True)
class CompiledShare:
    """The share of a batch that a network is compiled for."""

    images: int
    """B."""
    is_filled: bool
    """Whether padding images fill a smaller share; otherwise it is computed without compilation."""

    def fill(self, batch: Batch) -> Batch:
        """Append padding images where there are too few.

        They repeat the first image, with weight 0 and all targets ignored, so that no loss, bank or
        prototype sees them. Indices into the flattened (B, L) axes stay what they were.
        """
        missing = self.images - len(batch.weight_B)
        if self.is_filled and missing >= 0 and batch.shares is not None:  # each fills its own
            images = [self.images] * len(batch.shares.images)
            batch = batch._replace(shares=batch.shares._replace(images=images))
        if not self.is_filled or missing <= 0:
            return batch
        return batch._replace(
            images_BCHW=_repeat_first(batch.images_BCHW, missing),
            targets_BL=_append(batch.targets_BL, missing, -1),
            weight_B=_append(batch.weight_B, missing, 0),
            index_B=_repeat_first(batch.index_B, missing),
        )

    def run(
        self,
        model: nn.Module,
        images_BCHW: Tensor,
        memory: Memory | None,
        targets_BL: Tensor | None = None,
    ) -> Output:
        """Run the compiled network; without compilation where the number of images is another."""
        if memory is not None:
            for part in (memory.rows_MD, memory.labels_M, memory.positions_M):
                torch._dynamo.maybe_mark_dynamic(part, 0)
        if len(images_BCHW) != self.images:
            with torch.compiler.set_stance("force_eager"):
                return cast(Output, model(images_BCHW, memory, targets_BL))
        return cast(Output, model(images_BCHW, memory, targets_BL))


def compiled_share(network: nn.Module, batch_size: int) -> CompiledShare:
    """Choose the share that a network in training mode is compiled for on this worker.

    It is the largest share of a complete batch; a worker whose share is smaller by one image would
    otherwise wait for the others. Where BatchNorm computes statistics of the batch, padding images
    would change them: a worker then compiles for its own share of a complete batch.

    Args:
        network: what is compiled.
        batch_size: of the global batch.
    """
    rank, workers = distributed.rank(), distributed.world_size()
    if any(isinstance(layer, _BatchNorm) and layer.training for layer in network.modules()):
        start, stop = distributed.split(batch_size, rank, workers)
        return CompiledShare(max(stop - start, 1), is_filled=False)
    return CompiledShare(-(-batch_size // workers), is_filled=True)


def _repeat_first(tensor: Tensor, times: int) -> Tensor:
    """Append the first row; parts of one memory format keep it."""
    return torch.cat([tensor, *[tensor[:1]] * times])


def _append(tensor: Tensor, rows: int, value: int) -> Tensor:
    return torch.cat([tensor, tensor.new_full((rows, *tensor.shape[1:]), value)])
