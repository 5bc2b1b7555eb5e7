"""What does each component of SADCL add on photographs? The paper's Table 7 with its control.

It trains on stored features of a frozen backbone, so that a laptop has the answer in an evening.
Seeds are added until each difference is settled.

python experiments/ablate_photographs.py                                      # drawn scenes
python experiments/ablate_photographs.py --data-root folder=photos
python experiments/ablate_photographs.py --data-root coco=/data/coco --data-root folder=photos
"""

from sadcl import Ablation, main, recipes
from sadcl.search import Until

photographs = recipes.photographs()
few = photographs.override({"data.name": "coco", **recipes.FEW})  # some hundreds of COCO's images

ablation = Ablation(
    name="photographs",
    question="What does each component of SADCL bring on photographs?",
    base={"folder": photographs, "coco": few},
    demo=recipes.demo(),
    seeds=Until(half_width=0.5, at_least=5, at_most=20),
    baseline="stage 2 without contrast",
    arms={
        "pooled": {"model.head": "sadcl.model.heads:Pooled", "stage2.epochs": 0},
        "SARL": {"stage2.epochs": 0},
        "stage 2 without contrast": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
        "+SSCL": {"loss.prototype_weight": 0.0},
        "+PSCL": {"loss.sample_weight": 0.0},
        "both": {},
    },
)

if __name__ == "__main__":
    main(ablation)
