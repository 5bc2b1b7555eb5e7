"""Does it matter, on photographs, what the contrasts remember and what Eq. 4 compares?

Each arm changes one choice of the arm with both contrasts: candidates, anchors and their mask, the
memory bank, the prototypes.

python experiments/ablate_photographs_memory.py                               # drawn scenes
python experiments/ablate_photographs_memory.py --data-root folder=photos
python experiments/ablate_photographs_memory.py --data-root coco=/data/coco
"""

from ablate_photographs import few, photographs

from sadcl import Ablation, main, recipes
from sadcl.search import Until

ALL_ROWS = {"loss.candidates": "all"}

ablation = Ablation(
    name="photographs-memory",
    question="Does it matter what the contrasts remember and what Eq. 4 compares?",
    base={"folder": photographs, "coco": few},
    demo=recipes.demo().override({"prototypes.policy": "learned"}),
    seeds=Until(half_width=0.5, at_least=5, at_most=20),
    baseline="both",
    arms={
        "both": {},
        "anchors masked as released": {"loss.anchor_mask": "released"},
        "all rows": ALL_ROWS,
        "all rows as anchors": {**ALL_ROWS, "loss.anchors": "batch+bank"},
        "batch anchors": {"loss.anchors": "batch"},
        "fifo bank": {"bank.policy": "fifo", "bank.start": "empty"},
        "no bank": {"bank.policy": "none", "bank.start": "empty"},
        "prototypes are means": {"prototypes.policy": "mean"},
        "prototypes are moving averages": {"prototypes.policy": "ema"},
    },
)

if __name__ == "__main__":
    main(ablation)
