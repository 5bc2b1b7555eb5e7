"""Which temperatures, thresholds and weights serve SADCL best on PASCAL VOC 2012?

At demo scale (minutes on a laptop, no data needed), then at full scale:

python experiments/tune_voc2012.py
python experiments/tune_voc2012.py --data-root /data/VOCdevkit
"""

from sadcl import Search, main, recipes
from sadcl.search import ASHA, contrast_space

base, demo = recipes.voc2012("released"), recipes.demo("voc2012")

search = Search(
    name="voc2012-tune",
    question="Which tau, epsilon and loss weights serve SADCL best on PASCAL VOC 2012?",
    base=base,
    demo=demo,
    space=contrast_space(base),
    demo_space=contrast_space(demo, epsilon=(0.3, 0.7)),
    n_trials=40,
    n_demo_trials=8,
    pruner=ASHA(min_epochs=2, reduction=3),
    confirm_top=1,
    confirm_seeds=(1001, 1002, 1003),
    published=96.9,  # Table 4, 448 px, by its server; it started from a COCO model
)

if __name__ == "__main__":
    main(search)
