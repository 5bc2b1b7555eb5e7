"""Eq. 4 against plain loops, and what holds whatever the values."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl.losses import sample_to_sample_loss
from sadcl.losses.sample_to_sample import Candidates, sample_to_sample, sum_over_anchors
from tests.conftest import sample_sum as sum_and_count


def reference(x, targets, bank, bank_labels, *, tau, normalize, anchors="batch+bank"):
    """Eq. 4 as it stands: (sum over anchors, number of counted anchors)."""
    rows = [
        (x[i, j], j, True) for i in range(len(x)) for j in range(x.shape[1]) if targets[i, j] == 1
    ]
    rows += [(bank[m], int(bank_labels[m]), False) for m in range(len(bank))]
    if normalize:
        rows = [(row / row.norm(), label, of_batch) for row, label, of_batch in rows]
    total, count = x.sum() * 0, 0
    for a, (anchor, label, of_batch) in enumerate(rows):
        others = [row for c, row in enumerate(rows) if c != a]
        positives = [row for row in others if row[1] == label]
        if not positives or (anchors == "batch" and not of_batch):
            continue
        denominator = sum(torch.exp(anchor @ row / tau) for row, _, _ in others)
        logs = sum(
            torch.log(torch.exp(anchor @ row / tau) / denominator) for row, _, _ in positives
        )
        total, count = total - logs / len(positives), count + 1
    return total, count


def make(images=4, labels=3, dim=5, bank=6, share=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, labels, dim, generator=generator, dtype=torch.float64)
    targets = (torch.rand(images, labels, generator=generator) < share).long()
    rows = torch.randn(bank, dim, generator=generator, dtype=torch.float64)
    return (
        x.requires_grad_(),
        targets,
        rows.requires_grad_(),
        torch.randint(labels, (bank,), generator=generator),
    )


def value_and_gradient(value, *inputs):
    gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(i) if g is None else g for i, g in zip(inputs, gradients, strict=True)
    ]


def assert_same(got, expected, tolerance=1e-10):
    torch.testing.assert_close(got[0], expected[0], rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(got[1], expected[1], strict=True):
        assert (mine - theirs).norm() <= tolerance * max(1.0, float(theirs.norm()))


@pytest.mark.parametrize("bank", [0, 1, 7], ids=lambda m: f"bank{m}")
@pytest.mark.parametrize(("tau", "normalize"), [(0.2, True), (0.01, True), (0.5, False)])
@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_equals_plain_loops(monkeypatch, bank, tau, normalize, chunk):
    monkeypatch.setattr(f"{sample_to_sample.__module__}.CHUNK", chunk)
    monkeypatch.setattr(f"{sample_to_sample.__module__}.BLOCK", 1)
    x, targets, rows, labels = make(bank=bank, seed=bank)
    targets[0] = 0
    targets[1, 0] = -1
    total, count = reference(x, targets, rows, labels, tau=tau, normalize=normalize)
    options = {"temperature": tau, "normalize": normalize}
    for reduction, expected in (("mean", total / count), ("sum", total)):
        got = sample_to_sample_loss(x, targets, rows, labels, reduction=reduction, **options)
        assert got.dtype == torch.float64
        assert_same(value_and_gradient(got, x, rows), value_and_gradient(expected, x, rows))


def test_without_a_bank_is_with_an_empty_one():
    x, targets, rows, labels = make(bank=0)
    expected = sample_to_sample_loss(x, targets, rows, labels, temperature=0.2)
    assert sample_to_sample_loss(x, targets, temperature=0.2) == expected > 0


def test_anchors_of_the_batch_alone():
    x, targets, rows, labels = make()
    total, count = reference(x, targets, rows, labels, tau=0.2, normalize=True, anchors="batch")
    got, counted = sum_and_count(x, targets, rows, labels, temperature=0.2, anchors="batch")
    assert int(counted) == count < sum_and_count(x, targets, rows, labels, temperature=0.2)[1]
    assert_same(value_and_gradient(got, x, rows), value_and_gradient(total, x, rows))


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(normalize):
    x, targets, rows, labels = make(images=3, labels=2, dim=3, bank=3, share=0.7)
    torch.autograd.gradcheck(
        lambda a, b: sample_to_sample_loss(
            a, targets, b, labels, temperature=0.5, normalize=normalize
        ),
        (x, rows),
    )


def test_order_of_images_labels_and_bank_does_not_matter():
    x, targets, rows, labels = make(images=6, labels=4, bank=9)
    image, label, row = torch.randperm(6), torch.randperm(4), torch.randperm(9)
    moved = sample_to_sample_loss(
        x[image][:, label],
        targets[image][:, label],
        rows[row],
        label.argsort()[labels[row]],
        temperature=0.2,
    )
    same = sample_to_sample_loss(x, targets, rows, labels, temperature=0.2)
    assert_same(value_and_gradient(moved, x, rows), value_and_gradient(same, x, rows))


def test_only_activated_rows_matter():
    x, targets, rows, labels = make()
    targets[0, 0], targets[1, 1] = -1, 0
    loss = sample_to_sample_loss(x, targets, rows, labels, temperature=0.2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert bool((gradient[targets != 1] == 0).all())
    assert bool((gradient[targets == 1].abs().sum(1) > 0).all())
    wild = torch.where((targets == 1)[..., None], x, torch.full_like(x, 1e9))
    assert sample_to_sample_loss(wild, targets, rows, labels, temperature=0.2) == loss


@pytest.mark.parametrize("targets", [[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[-1, -1], [-1, 1]]])
def test_no_anchor_with_a_positive_is_a_differentiable_zero(targets):
    x = torch.randn(2, 2, 3, requires_grad=True)
    loss = sample_to_sample_loss(x, torch.tensor(targets), temperature=0.2)
    loss.backward()
    assert loss == 0
    assert bool((x.grad == 0).all())


def test_a_label_with_one_positive_is_a_negative_for_others_but_no_anchor():
    x, targets, rows, labels = make(images=3, labels=2, bank=0)
    targets = torch.tensor([[1, 1], [1, 0], [1, 0]])
    total, count = sum_and_count(x, targets, rows, labels, temperature=0.2)
    assert count == 3
    assert_same(
        value_and_gradient(total, x),
        value_and_gradient(reference(x, targets, rows, labels, tau=0.2, normalize=True)[0], x),
    )
    assert (
        total > sum_and_count(x, targets * torch.tensor([1, 0]), rows, labels, temperature=0.2)[0]
    )


def test_equal_rows_of_one_label_give_the_logarithm_of_their_number():
    x = torch.ones(5, 1, 3)
    loss = sample_to_sample_loss(x, torch.ones(5, 1), temperature=0.07)
    assert float(loss) == pytest.approx(math.log(4), abs=1e-5)


def test_a_zero_row_is_compared_as_zero_and_gets_no_gradient():
    x, targets, rows, labels = make(share=1.0)
    with torch.no_grad():
        x[0, 0] = 0
    sample_to_sample_loss(x, targets, rows, labels, temperature=0.01).backward()
    assert bool((x.grad[0, 0] == 0).all())
    assert float(x.grad.abs().max()) < 1e3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [0.01, 0.2])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_thousand_positives_under_autocast(dtype, tau, normalize):
    torch.manual_seed(0)
    head, inputs = torch.nn.Linear(8, 8), torch.randn(1000, 1, 8) * 0.1 + 3
    with torch.autocast("cpu", dtype=dtype):
        x = head(inputs)
        assert x.dtype == dtype
        loss = sample_to_sample_loss(x, torch.ones(1000, 1), temperature=tau, normalize=normalize)
    loss.backward()
    exact = sample_to_sample_loss(
        x.detach().double(), torch.ones(1000, 1), temperature=tau, normalize=normalize
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-4, atol=1e-4)
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters())


def test_no_tensor_is_larger_than_candidates_by_a_chunk(monkeypatch):
    monkeypatch.setattr(f"{sample_to_sample.__module__}.CHUNK", 16)
    monkeypatch.setattr(f"{sample_to_sample.__module__}.BLOCK", 1)
    x, targets, rows, labels = make(images=30, labels=10, bank=300, dim=4, share=1.0)

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.seen = max(self.seen, tensor.numel())
            return result

    with Largest() as largest:
        sample_to_sample_loss(x, targets, rows, labels, temperature=0.2).backward()
    assert largest.seen == 600 * 16


class Rounded(TorchDispatchMode):
    """Rounds the factors of matrix products to ``bits`` bits after the leading one, as a GPU does.

    Sums stay in the type of the factors.
    """

    def __init__(self, bits):
        super().__init__()
        self.bits, self.products = bits, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, args = func.overloadpacket.__name__, list(args)
        for place in {"mm": (0, 1), "addmm": (1, 2), "addmm_": (1, 2)}.get(name, ()):
            mantissa, exponent = torch.frexp(args[place])
            scale = 2 ** (self.bits + 1)
            args[place] = torch.ldexp((mantissa * scale).round() / scale, exponent)
            self.products += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("bits", "error"), [(10, 6e-5), (7, 5e-4)], ids=["TF32", "bf16"])
@pytest.mark.parametrize("scatter", [1.0, 2.0])
def test_products_of_rounded_factors_keep_the_gradient(bits, error, scatter):
    """Beside bfloat16 a GPU computes the products in TF32, see ``build.set_float32_products``."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(20, 1024, generator=generator, dtype=torch.float64)
    labels = torch.randint(20, (400,), generator=generator)
    noise = torch.randn(400, 1024, generator=generator, dtype=torch.float64)
    rows, nothing = centre[labels] + scatter * noise, torch.zeros(1, 20)

    def gradient(rows):
        rows = rows.clone().requires_grad_()
        x = torch.zeros(1, 20, 1024, dtype=rows.dtype)
        loss = sample_to_sample_loss(x, nothing, rows, labels, temperature=0.2)
        return torch.autograd.grad(loss, rows)[0].double()

    exact = gradient(rows)
    with Rounded(bits) as rounded:
        difference = (gradient(rows.float()) - exact).norm() / exact.norm()
    assert rounded.products == 2 * 3
    assert error / 5 < difference < error


WITHOUT_KERNEL = (
    " alias as_strided detach device dim empty empty_like expand is_contiguous layout lift_fresh "
    "new_empty numel select size slice split storage_offset stride sym_numel sym_size sym_stride t "
    "sym_storage_offset transpose unbind unsqueeze view is_non_overlapping_and_dense squeeze "
    "is_strides_like_format "
)


class OnGpu(TorchDispatchMode):
    """Kernels, and the bytes of the largest tensor, of a GPU that need not exist."""

    def __init__(self):
        super().__init__()
        self.kernels, self.largest, self.products = 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.kernels += f" {name} " not in WITHOUT_KERNEL
        self.products += name in ("mm", "addmm", "addmm_")
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.nbytes)
        return result


@pytest.mark.parametrize(
    ("images", "labels", "cardinality", "workers", "blocks"),
    [(32, 80, 2.9, 1, 1), (64, 80, 2.9, 64, 1), (64, 500, 13.6, 1, 1), (64, 500, 13.6, 64, 3)],
)
@pytest.mark.parametrize("padded", [False, True])
def test_on_a_gpu_blocks_are_few_and_fit_their_bytes(
    images, labels, cardinality, workers, blocks, padded
):
    own = round(images * cardinality)
    rows, dim = own * workers, 1024
    with FakeTensorMode(), torch.device("cuda"):
        candidates = Candidates(
            torch.zeros(rows, dim, requires_grad=True),
            torch.zeros(rows, dim, requires_grad=True),
            torch.zeros(2 * rows, dtype=torch.int64),
            torch.zeros(labels + 1, dtype=torch.int64),
            torch.zeros(2 * own, dtype=torch.int64),
            torch.ones(2 * own, dtype=torch.bool),
            [own] * workers,
            padded,
        )
        if not padded:  # a mask as an index has no size that is known without data
            candidates = candidates._replace(has_positive_Q=slice(None))
        with OnGpu() as gpu:
            options = {"temperature": 0.2, "normalize": True}
            sum_over_anchors(candidates, candidates.has_positive_Q, **options)
    assert gpu.products == 3 * blocks
    assert gpu.kernels < 30 + 50 * blocks
    inputs = 2 * rows * dim * 4
    assert gpu.largest <= max(2**28, inputs)
    if workers == 1:  # all pairs, of batch and bank, need a hundred times as much
        assert gpu.largest <= max((2 * images * labels) ** 2 * 4 / 100, inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature > 0 must hold, but got 0.0"),
        ({"temperature": math.nan}, "temperature > 0"),
        ({"reduction": "none"}, "but got 'none'"),
        ({"targets": torch.ones(4, 2)}, r"\(4, 3, 5\) and \(4, 2\)"),
        ({"bank_labels": None}, "go together"),
        ({"bank_labels": torch.zeros(5, dtype=torch.int64)}, r"\(6, 5\) and \(5,\)"),
        ({"bank_labels": torch.tensor([0, 1, 2, 3, 0, 0])}, r"0\.\.2, but go from 0 to 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_values(change, message):
    x, targets, rows, labels = make()
    given = {
        "targets": targets,
        "bank_embeddings": rows,
        "bank_labels": labels,
        "temperature": 0.2,
    } | change
    with pytest.raises(ValueError, match=message):
        sample_to_sample_loss(x, **given)
