"""A step in eager mode needs no C compiler on a GPU.

There torch 2.14 replaces a few products by kernels that Triton compiles.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sadcl.losses.prototype_to_sample import similarities
from sadcl.training import engine
from tests.training.test_engine import batch, prepared


class Products(TorchDispatchMode):
    """The shapes of all calls of bmm: those that Triton would compute, and the others."""

    def __init__(self):
        super().__init__()
        self.replaced, self.others = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket is torch.ops.aten.bmm:
            left, right, *_ = args
            shapes = tuple(left.shape), tuple(right.shape)
            (self.replaced if is_replaced(left, right) else self.others).append(shapes)
        return function(*args, **(kwargs or {}))


def is_replaced(left, right):
    """As ``_is_outer_product`` of torch._native.ops.bmm_outer_product in torch 2.14."""
    return left.shape[2] == 1 and right.shape[1] == 1 and left.numel() > 0 and right.numel() > 0


@pytest.mark.parametrize("left", [(2, 3, 1), (2, 1, 1), (2, 3, 4), (0, 3, 1)])
@pytest.mark.parametrize("right", [(2, 1, 5), (2, 4, 5), (0, 1, 5)])
def test_the_shapes_are_those_of_the_installed_torch(left, right):
    native = pytest.importorskip("torch._native.ops.bmm_outer_product.triton_impl")
    pair = torch.zeros(left), torch.zeros(right)
    assert is_replaced(*pair) is native._is_outer_product(*pair)


@pytest.mark.parametrize(
    "settings", [{}, {"model.projection": 1}, {"prototypes.policy": "learned"}]
)
@pytest.mark.parametrize("images", [1, 2])
def test_a_step_multiplies_nothing_that_triton_would(settings, images):
    training = prepared(settings)
    share = batch(2, looked=False)
    share = share._replace(
        **{
            name: getattr(share, name)[:images]
            for name in ("images_BCHW", "targets_BL", "weight_B", "index_B")
        }
    )
    with Products() as products:
        values = engine.train_step(training, share)
    assert "loss_prototype" in values
    assert products.replaced == []


def test_what_it_looks_for_is_found():
    with Products() as products:
        torch.bmm(torch.ones(2, 3, 1), torch.ones(2, 1, 4))
    assert products.replaced == [((2, 3, 1), (2, 1, 4))]


@pytest.mark.parametrize(("images", "size"), [(1, 8), (5, 1), (1, 1), (5, 8)])
def test_outer_products_have_the_bits_of_bmm(monkeypatch, images, size):
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([0, 3])

    def gradients():
        generator.manual_seed(0)
        x = torch.randn(images, 4, size, generator=generator, dtype=torch.float64).requires_grad_()
        c = torch.randn(4, size, generator=generator, dtype=torch.float64).requires_grad_()
        similarity, rows = similarities(x, c, index, temperature=0.3, normalize=True)
        loss = similarity.sin().sum() + rows.square().sum()
        return [similarity, *torch.autograd.grad(loss, (x, c))]

    without = gradients()
    monkeypatch.setattr("sadcl.losses.prototype_to_sample._bmm", torch.bmm)
    for one, other in zip(without, gradients(), strict=True):
        assert torch.equal(one, other)
