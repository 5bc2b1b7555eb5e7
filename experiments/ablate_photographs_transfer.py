"""Do the contrasts that are best on one set of photographs serve another?

The arms are the best settings of ``tune_photographs_contrasts.py`` on two data sets, rounded.

python experiments/ablate_photographs_transfer.py                             # drawn scenes
python experiments/ablate_photographs_transfer.py --data-root folder=photos
python experiments/ablate_photographs_transfer.py --data-root coco=/data/coco
"""

from ablate_photographs import few, photographs

from sadcl import Ablation, main, recipes
from sadcl.search import Until

BEST_OF_COCO = {
    "loss.tau": 0.35,
    "loss.prototype_tau": 0.032,
    "loss.sample_weight": 0.91,
    "loss.prototype_weight": 1.1,
    "bank.epsilon": 0.61,
    "prototypes.epsilon": 0.34,
}
BEST_OF_COREL5K = {
    "loss.tau": 0.35,
    "loss.prototype_tau": 0.044,
    "loss.sample_weight": 0.15,
    "loss.prototype_weight": 0.11,
    "bank.epsilon": 0.29,
    "prototypes.epsilon": 0.63,
}

ablation = Ablation(
    name="photographs-transfer",
    question="Do the contrasts that are best on one set of photographs serve another?",
    base={"folder": photographs, "coco": few},
    demo=recipes.demo(),
    seeds=Until(half_width=0.5, at_least=5, at_most=20),
    baseline="stage 2 without contrast",
    arms={
        "stage 2 without contrast": {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0},
        "the recipe's contrasts": {},
        "the best of COCO": BEST_OF_COCO,
        "the best of Corel5k": BEST_OF_COREL5K,
    },
)

if __name__ == "__main__":
    main(ablation)
