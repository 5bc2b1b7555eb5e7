"""How long all workers wait while the state of a run is saved, and what it costs in memory.

python experiments/benchmarks/saving.py    # a minute: 1 GB to the disk of temporary files

Ours copies the tensors and has them written by a thread; the workers wait for the copy. The
reference writes the same file before anyone goes on. Between two saves ours waits until the file is
whole, outside the measured time, as training does that takes longer than writing. The limit is one
copy of the bytes. The memory is what the process grows by at its peak.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from rows import REFS, Row, bandwidth, compare, print_rows, resident_bytes, seconds

from sadcl import storage
from sadcl.training.checkpoint import save_checkpoint
from sadcl.training.checkpoint_writer import CheckpointWriter

TENSORS, VALUES = 64, 1 << 22
"""64 tensors of 16 MiB, about as large as those of the transformer: 1.07 GB."""


def growth(work: Callable[[], object]) -> float:
    """Return the bytes by which the resident memory of this process grows at most in ``work``."""
    before = resident_bytes("VmRSS")
    REFS.write_text("5")
    work()
    return float(resident_bytes("VmHWM") - before)


def benchmark(quick: bool = False, repeats: int = 5) -> list[Row]:
    """Return the wait of a save, and its memory.

    Args:
        quick: use a small state and one round, to see that it runs.
        repeats: timed rounds.
    """
    content = {"model": [torch.randn(1000 if quick else VALUES) for _ in range(TENSORS)]}
    size = sum(tensor.nbytes for tensor in content["model"])
    waits: dict[str, list[float]] = {"ours": [], "reference": [], "whole": []}
    with tempfile.TemporaryDirectory() as folder:
        uri = storage.join(folder, "state.pt")
        with CheckpointWriter(torch.device("cpu")) as writer:

            def save_and_wait() -> None:
                writer.save({uri: content})
                writer.wait()

            for _ in range(1 if quick else repeats):
                waits["ours"].append(seconds(lambda: writer.save({uri: content})))
                start = time.perf_counter()
                writer.wait()
                waits["whole"].append(time.perf_counter() - start)
                waits["reference"].append(seconds(lambda: save_checkpoint(uri, content)))
            memory = [growth(save_and_wait)]
        memory.append(growth(lambda: save_checkpoint(uri, content)))
    name = f"a save of {size / 1e9:.2g} GB"
    limit = 2 * size / bandwidth(1 << 20 if quick else 1 << 27)
    return [
        compare(f"wait for {name}", "s", waits["ours"], waits["reference"], limit=limit, goal=3.0),
        compare(f"from then until the file of {name} is whole", "s", waits["whole"]),
        Row(f"memory of {name}", memory[0] / 1e9, "GB", reference=memory[1] / 1e9),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--quick", action="store_true", help="use a small state")
    print_rows(benchmark(**vars(parser.parse_args())))
