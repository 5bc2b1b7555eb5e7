"""Which temperatures, thresholds and weights serve SADCL best on NUS-WIDE?

At demo scale (minutes on a laptop, no data needed), then at full scale:

python experiments/tune_nuswide.py
python experiments/tune_nuswide.py --data-root /data/nuswide
"""

from sadcl import Search, main, recipes
from sadcl.search import ASHA, contrast_space

base, demo = recipes.nuswide("released"), recipes.demo("nuswide")

search = Search(
    name="nuswide-tune",
    question="Which tau, epsilon and loss weights serve SADCL best on NUS-WIDE?",
    base=base,
    demo=demo,
    space=contrast_space(base),
    demo_space=contrast_space(demo, epsilon=(0.3, 0.7)),
    n_trials=40,
    n_demo_trials=8,
    pruner=ASHA(min_epochs=2, reduction=3),
    confirm_top=1,
    confirm_seeds=(1001, 1002, 1003),
    published=65.9,  # Table 5, 448 px
)

if __name__ == "__main__":
    main(search)
