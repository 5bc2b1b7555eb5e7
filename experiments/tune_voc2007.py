"""Which temperatures, thresholds and weights serve SADCL best on PASCAL VOC 2007?

At demo scale (minutes on a laptop, no data needed), then at full scale:

python experiments/tune_voc2007.py
python experiments/tune_voc2007.py --data-root /data/VOCdevkit
"""

from sadcl import Search, main, recipes
from sadcl.search import ASHA, contrast_space

base, demo = recipes.voc2007("released"), recipes.demo("voc2007")

search = Search(
    name="voc2007-tune",
    question="Which tau, epsilon and loss weights serve SADCL best on PASCAL VOC 2007?",
    base=base,
    demo=demo,
    space=contrast_space(base),
    demo_space=contrast_space(demo, epsilon=(0.3, 0.7)),
    n_trials=40,
    n_demo_trials=8,
    pruner=ASHA(min_epochs=2, reduction=3),
    confirm_top=1,
    confirm_seeds=(1001, 1002, 1003),
    published=96.4,  # Table 3, 448 px; it started from a COCO model
)

if __name__ == "__main__":
    main(search)
