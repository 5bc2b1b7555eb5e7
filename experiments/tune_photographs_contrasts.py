"""Which temperatures, thresholds and weights serve the contrasts best on photographs?

python experiments/tune_photographs_contrasts.py                              # drawn scenes
python experiments/tune_photographs_contrasts.py --data-root photos
python experiments/tune_photographs_contrasts.py --data-root /data/coco --set data.name=coco
"""

from sadcl import Search, main, recipes
from sadcl.search import contrast_space

base, demo = recipes.photographs(), recipes.demo()

search = Search(
    name="photographs-contrasts",
    question="Which tau, epsilon and loss weights serve SADCL best on photographs?",
    base=base,
    demo=demo,
    space=contrast_space(base, epsilon=(0.2, 0.8)),
    demo_space=contrast_space(demo, epsilon=(0.3, 0.7)),
    n_trials=40,
    n_demo_trials=8,
    confirm_seeds=(1001, 1002, 1003, 1004, 1005),
)

if __name__ == "__main__":
    main(search)
