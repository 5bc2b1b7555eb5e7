"""What does each component of SADCL add on photographs? Table 7, its control, and what Eq. 4 sees.

It trains on stored features of a frozen backbone, so that a laptop has the answer in an evening.
Seeds are added until each difference is settled.

python experiments/ablate_photographs.py                                      # drawn scenes
python experiments/ablate_photographs.py --data-root photos
python experiments/ablate_photographs.py --data-root coco=/data/coco --data-root folder=photos
"""

from sadcl import Ablation, main, recipes
from sadcl.search import Until

photographs = recipes.photographs()
NEITHER = {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0}
ALL_ROWS = {"loss.candidates": "all"}

ablation = Ablation(
    name="photographs",
    question="What does each component of SADCL bring on photographs?",
    base={"folder": photographs, "coco": photographs.override({"data.name": "coco"})},
    demo=recipes.demo().override({"prototypes.policy": "learned"}),
    seeds=Until(half_width=1.0, at_least=5, at_most=20),
    baseline="stage 2 without contrast",
    arms={
        "pooled": {"model.head": "sadcl.model.heads:Pooled", "stage2.epochs": 0},
        "SARL": {"stage2.epochs": 0},
        "stage 2 without contrast": NEITHER,
        "+SSCL": {"loss.prototype_weight": 0.0},
        "+PSCL": {"loss.sample_weight": 0.0},
        "both": {},
        "both, anchors masked as released": {"loss.anchor_mask": "released"},
        "both, all rows": ALL_ROWS,
        "both, all rows as anchors": {**ALL_ROWS, "loss.anchors": "batch+bank"},
        "both, batch anchors": {"loss.anchors": "batch"},
        "both, fifo bank": {"bank.policy": "fifo", "bank.start": "empty"},
        "both, no bank": {"bank.policy": "none", "bank.start": "empty"},
        "both, prototypes are means": {"prototypes.policy": "mean"},
        "both, prototypes are averages": {"prototypes.policy": "ema"},
    },
)

if __name__ == "__main__":
    main(ablation)
