"""What does each component of SADCL add? The paper's Table 7 over seeds, with the missing control.

At demo scale, then at full scale:

python experiments/ablate_components.py
python experiments/ablate_components.py --data-root coco=/data/coco --data-root nuswide=/data/nus
"""

from sadcl import Ablation, main, recipes

ALONE = {"stage2.epochs": 0}  # only stage 1, as in the paper's rows of SARL
ALL = {"loss.candidates": "all", "loss.anchors": "batch+bank"}

ablation = Ablation(
    name="components",
    question="What does each component of SADCL bring beyond stage 2 without contrast?",
    base={"coco": recipes.coco14("released"), "nuswide": recipes.nuswide("released")},
    demo=recipes.demo().override({"model.encoder_layers": 1}),
    seeds=(0, 1, 2, 3, 4),
    baseline="stage 2 without contrast",
    arms={
        "baseline": {"model.head": "sadcl.model.heads:Pooled"},
        "SARL without encoder": {"model.encoder_layers": 0, **ALONE},
        "SARL": ALONE,
        "stage 2 without contrast": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
        "+SSCL": {"loss.prototype_weight": 0.0},
        "+PSCL": {"loss.sample_weight": 0.0},
        "both": {},
        "both, all rows": {"loss.candidates": "all"},
        "both, all rows as anchors": ALL,
        "both, all rows, batch divisor": {**ALL, "loss.sample_reduction": "batch"},
        "both, batch anchors": {"loss.anchors": "batch"},
        "both, Eq. 6 by labels": {"loss.prototype_reduction": "mean"},
        "both, empty bank at start": {"bank.start": "empty"},
        "both, anchors masked as released": {"loss.anchor_mask": "released"},
        "both, absent labels pushed": {"loss.absent_labels": "push"},
    },
    marks={
        "baseline": (),
        "SARL without encoder": ("decoder",),
        "SARL": ("decoder", "encoder"),
        "stage 2 without contrast": ("decoder", "encoder", "stage 2"),
        "+SSCL": ("decoder", "encoder", "stage 2", "SSCL"),
        "+PSCL": ("decoder", "encoder", "stage 2", "PSCL"),
        "both": ("decoder", "encoder", "stage 2", "SSCL", "PSCL"),
    },
    published={  # Table 7
        "baseline": {"coco14": 81.5, "nuswide": 62.5},
        "SARL without encoder": {"coco14": 84.7, "nuswide": 65.0},
        "SARL": {"coco14": 85.0, "nuswide": 65.3},
        "+SSCL": {"coco14": 85.4, "nuswide": 65.6},
        "+PSCL": {"coco14": 85.4, "nuswide": 65.7},
        "both": {"coco14": 85.6, "nuswide": 65.9},
    },
)

if __name__ == "__main__":
    main(ablation)
