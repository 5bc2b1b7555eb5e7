"""Which head settings serve a few thousand photographs best, on stored features of a backbone?

The search that checks the values of ``recipes.photographs()``: stage 1 alone, on your own folder or
another data set. Its best settings are confirmed over fresh seeds.

python experiments/tune_photographs.py                                   # drawn scenes
python experiments/tune_photographs.py --data-root photos
python experiments/tune_photographs.py --data-root /data/coco --set data.name=coco17
"""

from sadcl import Search, main, recipes
from sadcl.search import Choice, Float

ALONE = {"stage2.epochs": 0}

search = Search(
    name="photographs-head",
    question="Which head settings serve a few thousand photographs best?",
    base=recipes.photographs().override(ALONE),
    demo=recipes.demo().override(ALONE),
    space={
        "stage1.lr": Float(5e-4, 3e-2, log=True),
        "stage1.class_loss.kind": Choice("bce", "asymmetric"),
        "model.dropout": Choice(0.0, 0.1, 0.3, 0.5),
        "optim.weight_decay": Float(0.02, 30.0, log=True),
        "optim.pct_start": Float(0.1, 0.5),
    },
    n_trials=24,
    n_demo_trials=8,
    confirm_seeds=(1001, 1002, 1003),
)

if __name__ == "__main__":
    main(search)
