"""Which temperatures, thresholds and weights does SADCL want on MS-COCO?

python experiments/tune_coco.py                          # minutes on a laptop: embedded scenes, demo scale
python experiments/tune_coco.py --data-root /data/coco   # the real thing, COCO 2014 or 2017 as it lies on disk
"""

from sadcl import Search, main, recipes
from sadcl.search import Float

search = Search(
    name="coco14-tune",
    question="Which tau, epsilon and loss weights serve SADCL best on MS-COCO?",
    base=recipes.coco14("released"),
    demo=recipes.demo(),
    space={
        "loss.tau": Float(0.05, 0.5, log=True),
        "loss.prototype_tau": Float(0.03, 0.3, log=True),
        "bank.epsilon": Float(0.5, 0.95),
        "prototypes.epsilon": Float(0.5, 0.95),
        "loss.sample_weight": Float(1.0, 32.0, log=True),
        "loss.prototype_weight": Float(0.5, 16.0, log=True),
    },
    demo_space={
        "loss.tau": Float(0.05, 0.5, log=True),
        "loss.prototype_tau": Float(0.05, 0.5, log=True),
        "bank.epsilon": Float(0.3, 0.7),
        "prototypes.epsilon": Float(0.3, 0.7),
        "loss.sample_weight": Float(0.05, 4.0, log=True),
        "loss.prototype_weight": Float(0.05, 4.0, log=True),
    },
    trials=40,
    demo_trials=8,
    confirm_top=1,
    confirm_seeds=(1001, 1002),
    published=85.6,  # Table 1, 448 px
)

if __name__ == "__main__":
    main(search)
