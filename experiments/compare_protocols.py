"""What does each method reach as its own paper trains it? Nothing is searched here.

The table in sadcl/recipes/methods.py says what the configuration cannot express of a protocol, and
compare_methods.py compares the methods under one protocol.

python experiments/compare_protocols.py
python experiments/compare_protocols.py --data-root /data/coco --scale demo
python experiments/compare_protocols.py --data-root /data/coco
"""

from sadcl import Ablation, main, recipes

methods = recipes.methods

ablation = Ablation(
    name="protocols",
    question="What does each method reach under the protocol of its own paper?",
    base=recipes.coco14("released"),
    demo=recipes.demo("coco"),
    arms={name: methods.own(name) for name in methods.NAMES},
    demo_arms={name: methods.own(name, small=True) for name in methods.NAMES},
    baseline="SADCL",
    seeds=(1, 2, 3, 4, 5),
    published=methods.PUBLISHED,
    costs=True,
)

if __name__ == "__main__":
    main(ablation)
