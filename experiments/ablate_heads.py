"""Do both contrasts help other heads than SADCL's? Each head with and without them.

Both arms of a head train for as long, and from the same stage 1: the arm without contrasts is the
control of the arm with them. In the last arms newer contrasts take the place of Eq. 4, with its
weight and temperature, and are compared with it. C-Tran is told no labels, because the features of
a known label contain what a contrast asks for.

python experiments/ablate_heads.py
python experiments/ablate_heads.py --data-root /data/coco --scale demo
python experiments/ablate_heads.py --data-root /data/coco
"""

from sadcl import Ablation, main, recipes

methods = recipes.methods
WITHOUT = {"loss.sample_weight": 0.0, "loss.prototype_weight": 0.0}
CONTRASTS = {
    "MulSupCon": "mulsupcon:mulsupcon",
    "similarity-dissimilarity": "similarity_dissimilarity:similarity_dissimilarity",
    "ProbMCL": "probmcl:probmcl",
    "Eq. 4 by label": "same_label:label_wise",
}


def arms(*, small: bool) -> dict:
    """Give both arms of each head, and the newer contrasts with SARL's."""
    pairs: dict = {}
    for name in methods.FEATURES:
        head = methods.head(name, small=small)
        head |= {"model.head_arguments.known": 0.0} if name == "C-Tran" else {}
        pairs |= {name: head | WITHOUT, f"{name} + contrasts": head}
    newer = {
        f"SARL + contrasts, {name}": {"loss.contrast": f"sadcl.losses.{path}"}
        for name, path in CONTRASTS.items()
    }
    return {"SARL": WITHOUT, "SARL + contrasts": {}, **pairs, **newer}


ablation = Ablation(
    name="heads",
    question="Do both contrasts help other heads, and do newer contrasts help more than Eq. 4?",
    base=recipes.coco14("released").override(methods.ONE_PROTOCOL),
    demo=recipes.demo("coco"),
    arms=arms(small=False),
    demo_arms=arms(small=True),
    baseline="SARL",
    references={
        **{f"{name} + contrasts": name for name in methods.FEATURES},
        **{f"SARL + contrasts, {name}": "SARL + contrasts" for name in CONTRASTS},
    },
    seeds=(1, 2, 3, 4, 5),
    published={"SARL + contrasts": methods.PUBLISHED["SADCL"]},
    costs=True,
)

if __name__ == "__main__":
    main(ablation)
