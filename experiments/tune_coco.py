"""Which temperatures, thresholds and weights serve SADCL best on MS-COCO?

At demo scale (minutes on a laptop, no data needed), then at full scale (COCO 2014 or 2017):

python experiments/tune_coco.py
python experiments/tune_coco.py --data-root /data/coco
"""

from sadcl import Search, main, recipes
from sadcl.search import ASHA, contrast_space

base, demo = recipes.coco14("released"), recipes.demo("coco")

search = Search(
    name="coco14-tune",
    question="Which tau, epsilon and loss weights serve SADCL best on MS-COCO?",
    base=base,
    demo=demo,
    space=contrast_space(base),
    demo_space=contrast_space(demo, epsilon=(0.3, 0.7)),
    n_trials=40,
    n_demo_trials=8,
    pruner=ASHA(min_epochs=2, reduction=3),
    confirm_top=1,
    confirm_seeds=(1001, 1002, 1003),
    published=85.6,  # Table 1, 448 px
)

if __name__ == "__main__":
    main(search)
