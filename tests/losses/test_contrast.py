"""The protocol: its own example, Eq. 4 through it, and how the criterion calls a contrast."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl.losses import contrast as protocol
from sadcl.losses import sample_to_sample_loss
from sadcl.losses.contrast import ContrastSum
from sadcl.losses.criterion import Criterion
from sadcl.losses.mulsupcon import mulsupcon
from sadcl.losses.probmcl import probmcl
from sadcl.losses.same_label import label_wise, same_label
from sadcl.losses.sample_contrast import sample_contrast
from sadcl.losses.similarity_dissimilarity import similarity_dissimilarity
from sadcl.memory import Memory
from tests.losses.contrast_views import draw, labels_of, log_share, others, view_of
from tests.losses.test_sample_to_sample import assert_same, value_and_gradient

CONTRASTS = [
    sample_contrast,
    mulsupcon,
    similarity_dissimilarity,
    partial(probmcl, alpha=0.5),
    same_label,
    label_wise,
]
IDS = ["sample", "mulsupcon", "similarity_dissimilarity", "probmcl", "same_label", "label_wise"]


def of_documentation():
    """The contrast that the protocol's page shows."""
    lines = protocol.__doc__.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("    def "))
    end = next(k for k in range(start, len(lines)) if not lines[k])
    names = {name: getattr(protocol, name) for name in dir(protocol)}
    exec("\n".join(line[4:] for line in lines[start:end]), names)
    return names["supcon"]


def criterion_inputs(view, weight=None):
    """What a criterion of the sample contrast alone is called with."""
    output = SimpleNamespace(
        logits_BL=view.embeddings_BLP.sum(2),
        embeddings_BLP=view.embeddings_BLP,
        bank_MP=view.bank_MP,
        prototypes_LP=None,
        prototype_valid_L=None,
    )
    weight = torch.ones(len(view.targets_BL)) if weight is None else weight
    batch = SimpleNamespace(
        targets_BL=view.targets_BL,
        weight_B=weight,
        positive_index_A=None,
        global_positive_index_G=None,
        shares=None,
    )
    return output, batch, view.memory


@pytest.mark.parametrize("min_shared", [1, 2])
def test_the_example_of_the_documentation_is_complete(min_shared):
    x, targets, *_ = draw(2, images=8)
    contrast = partial(of_documentation(), min_shared=min_shared)
    criterion = Criterion(sample_contrast=contrast, prototype_weight=0, sample_weight=1, tau=0.3)
    terms = criterion(*criterion_inputs(view_of(x, targets)))
    total, counted = 0.0, 0
    for i in range(len(x)):
        positives = [
            p
            for p in others(targets, i)
            if len(labels_of(targets, i) & labels_of(targets, p)) >= min_shared
        ]
        if positives:
            shares = [log_share(x, targets, i, p, others(targets, i), 0.3) for p in positives]
            total, counted = total - sum(shares) / len(positives), counted + 1
    assert terms.values["anchors"] == counted > 1
    torch.testing.assert_close(terms.values["loss_sample"], total.detach() / counted)
    assert_same(
        value_and_gradient(terms.weighted["sample"], x), value_and_gradient(total / counted, x)
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_eq4_is_a_contrast_like_any_other(normalize):
    x, targets, bank, labels = draw(1)
    options = {"temperature": 0.2, "normalize": normalize}
    got = sample_contrast(view_of(x, targets, bank, labels), **options)
    expected = sample_to_sample_loss(x, targets, bank, labels, reduction="sum", **options)
    assert_same(value_and_gradient(got.total, x, bank), value_and_gradient(expected, x, bank))
    batch_alone = sample_contrast(view_of(x, targets, bank, labels), anchors="batch", **options)
    assert 0 < batch_alone.counted == got.batch_counted < got.counted


@pytest.mark.parametrize("contrast", CONTRASTS, ids=IDS)
def test_padding_images_take_part_in_nothing(contrast):
    x, targets, bank, labels = draw(2)
    targets[2, :2] = 1
    weight = torch.ones(len(x))
    weight[2] = 0
    real = weight > 0
    criterion = Criterion(sample_contrast=contrast, prototype_weight=0)
    got = criterion(*criterion_inputs(view_of(x, targets, bank, labels), weight))
    less = criterion(*criterion_inputs(view_of(x[real], targets[real], bank, labels)))
    all_real = criterion(*criterion_inputs(view_of(x, targets, bank, labels)))
    assert got.values["anchors"] == less.values["anchors"] > 0
    assert got.values["loss_sample"] != all_real.values["loss_sample"]
    assert_same(
        value_and_gradient(got.weighted["sample"], x),
        value_and_gradient(less.weighted["sample"], x),
    )


@pytest.mark.parametrize("contrast", CONTRASTS, ids=IDS)
def test_the_gradient_is_that_of_finite_differences(contrast):
    x, targets, bank, labels = draw(3, images=4)
    torch.autograd.gradcheck(
        lambda rows: contrast(view_of(rows, targets, bank, labels), temperature=0.5).total, (x,)
    )


@pytest.mark.parametrize("contrast", CONTRASTS, ids=IDS)
def test_the_host_waits_for_no_value(contrast):
    x, targets, bank, labels = draw(4)
    view = view_of(x, targets, bank, labels, padded=True)

    class Waits(TorchDispatchMode):
        seen = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            aten, kind = torch.ops.aten, func.overloadpacket
            by_mask = kind is aten.index and any(
                index is not None and index.dtype == torch.bool for index in args[1]
            )
            if by_mask or kind in (aten._local_scalar_dense, aten.nonzero):
                self.seen += (func,)
            return func(*args, **(kwargs or {}))

    with Waits() as waits:
        contrast(view, temperature=0.2).total.backward()
    assert not waits.seen
    with waits:
        assert targets[targets == 1].sum().item() > 0  # this one is seen to wait twice
    assert len(waits.seen) == 2


@pytest.mark.parametrize("contrast", [sample_contrast, same_label])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": "bank"}, "anchors must be 'batch\\+bank' or 'batch', but got 'bank'"),
        ({"bank_scope": "node"}, "bank_scope must be 'cluster' or 'worker', but got 'node'"),
    ],
)
def test_an_unknown_word_is_refused(contrast, change, message):
    with pytest.raises(ValueError, match=message):
        contrast(view_of(torch.ones(2, 2, 2), torch.ones(2, 2)), temperature=0.2, **change)


def test_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match="anchor_mask must be .*, but got 'wrong'"):
        sample_contrast(
            view_of(torch.ones(2, 2, 2), torch.ones(2, 2)), temperature=0.2, anchor_mask="wrong"
        )


@pytest.mark.parametrize("contrast", CONTRASTS[1:4], ids=IDS[1:4])
def test_a_temperature_of_zero_is_refused(contrast):
    with pytest.raises(ValueError, match=r"temperature > 0 must hold, but got 0\.0"):
        contrast(view_of(torch.ones(2, 2, 2), torch.ones(2, 2)), temperature=0.0)


def test_the_divisor_of_each_reduction():
    """The mean is over all anchors that count, or over those of the batch where they are told."""

    def three_of_five(view, *, temperature):
        total = view.rows_AP.sum() * 0 + 30 * temperature
        return ContrastSum(total, total.new_tensor(5.0), total.new_tensor(3.0))

    def all_of_the_batch(view, *, temperature):
        return three_of_five(view, temperature=temperature)._replace(batch_counted=None)

    inputs = criterion_inputs(view_of(*draw(0)[:2]))
    for contrast, divisors in ((three_of_five, (5, 3, 1)), (all_of_the_batch, (5, 5, 1))):
        for reduction, divisor in zip(("mean", "batch", "sum"), divisors, strict=True):
            criterion = Criterion(
                sample_contrast=contrast, sample_reduction=reduction, prototype_weight=0, tau=0.5
            )
            values = criterion(*inputs).values
            assert float(values["loss_sample"]) == pytest.approx(15 / divisor)
            assert values["anchors"] == 5


def test_rows_are_those_of_the_embeddings_with_and_without_prototypes():
    """A contrast sees the same rows whether or not Eq. 6 shares their gradient."""
    x, targets, bank, labels = draw(4)
    c = torch.randn(x.shape[1:], dtype=torch.float64)
    seen = []

    def spy(view, *, temperature):
        seen.append(view)
        return mulsupcon(view, temperature=temperature)

    output, batch, memory = criterion_inputs(view_of(x, targets, bank, labels))
    output.prototypes_LP, output.prototype_valid_L = c, torch.ones(len(c), dtype=torch.bool)
    gradients = []
    for weight in (0.0, 1.0):
        terms = Criterion(sample_contrast=spy, prototype_weight=weight)(output, batch, memory)
        gradients.append(torch.autograd.grad(terms.weighted["sample"], x)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    for view in seen:
        assert torch.equal(view.rows_AP, x.flatten(0, 1)[view.positive_index_A])
        assert isinstance(view.memory, Memory)
