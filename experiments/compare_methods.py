"""Which method is best under one protocol? The paper's Table 1, with a search for each method.

Backbone, resolution, augmentation, epochs and optimiser are the same for all. Each method has as
many trials as every other for its learning rate and one or two constants of its own. At demo scale,
on photographs at demo scale, and at full scale:

python experiments/compare_methods.py
python experiments/compare_methods.py --data-root /data/coco --scale demo
python experiments/compare_methods.py --data-root /data/coco
"""

from sadcl import Comparison, main, recipes
from sadcl.search import Choice, Float, Int

methods = recipes.methods
base, demo = recipes.coco14("released").override(methods.ONE_PROTOCOL), recipes.demo("coco")
HEAD = "model.head_arguments."
Fields = dict[str, Float | Int | Choice]
DROPOUT: Fields = {HEAD + "dropout": Choice(0.0, 0.1, 0.2)}
FOCUS: Fields = {"stage1.class_loss.gamma_negative": Float(1, 5)}
DECAY: Fields = {"optim.weight_decay": Float(5e-4, 5e-2, log=True)}  # of methods without constants
CONTRAST: Fields = {
    "loss.tau": Float(0.05, 0.5, log=True),
    "loss.sample_weight": Float(0.5, 80, log=True),
}
CONSTANTS: dict[str, Fields] = {
    "SADCL": CONTRAST,
    "SARL": {"model.dropout": Choice(0.0, 0.1, 0.2)},
    "pooled, BCE": DECAY,
    "pooled, ASL": FOCUS,
    "ML-GCN": {HEAD + "threshold": Float(0.1, 0.6), HEAD + "neighbours": Float(0.1, 0.5)},
    "SSGRL": {HEAD + "steps": Int(1, 4)},
    "ADD-GCN": DECAY,
    "C-Tran": {HEAD + "known": Float(0.0, 0.9), **DROPOUT},
    "TDRG": {HEAD + "transformer_weight": Float(0.3, 0.9), HEAD + "peaks": Float(0.01, 0.2)},
    "CSRA": {HEAD + "lam": Float(0.05, 2.0, log=True), HEAD + "heads": Choice(1, 2, 4, 6)},
    "Query2Label": {**FOCUS, **DROPOUT},
    "MulCon": CONTRAST,
    "ML-Decoder": {**FOCUS, **DROPOUT},
}
RATE, DEMO_RATE = Float(1e-5, 5e-4, log=True), Float(5e-4, 1e-2, log=True)

comparison = Comparison(
    name="methods",
    question="Which method is best under one protocol, each with settings of its own?",
    base=base,
    demo=demo,
    methods={name: methods.shared(name, base) for name in methods.NAMES},
    demo_methods={name: methods.shared(name, demo, small=True) for name in methods.NAMES},
    spaces={name: {"stage1.lr": RATE, **CONSTANTS[name]} for name in methods.NAMES},
    demo_spaces={name: {"stage1.lr": DEMO_RATE, **CONSTANTS[name]} for name in methods.NAMES},
    baseline="SADCL",
    seeds=(1, 2, 3, 4, 5),
    published=methods.PUBLISHED,
)

if __name__ == "__main__":
    main(comparison)
