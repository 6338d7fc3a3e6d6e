"""Perceptrons in one array: their gradient is autograd's, and every layer is a part of the array."""

import copy

import pytest
import torch
from torch import Tensor

from agents import perceptrons
from agents.networks import StackedMLP
from agents.perceptrons import Shape
from tests.tiny_offline import by_pytorch

SHAPES = [Shape(2, (5, 7, 4, 3)), Shape(3, (4, 6, 1)), Shape(1, (6, 2))]


def draw(shape: Shape, rows: int = 9) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return numbers, inputs and masks that leave a third of the hidden units out."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    numbers = torch.randn(len(shape), **options).requires_grad_()
    inputs = torch.randn(shape.n_networks, rows, shape.widths[0], **options)
    masks = [
        1.5 * (torch.rand(shape.n_networks, rows, width, **options) > 1 / 3)
        for width in shape.widths[1:-1]
    ]
    return numbers, inputs, masks


@pytest.mark.parametrize("large", [0, 2**20])
@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_autograds(
    shape: Shape, with_masks: bool, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptrons, "LARGE", large)
    numbers, inputs, masks = draw(shape)
    masks = masks if with_masks else []
    layers = shape.layers_in(numbers.detach())
    out, trace = perceptrons.traced(layers, inputs, masks, 1.5 if masks else 1.0)
    wanted = by_pytorch(shape, numbers, inputs, masks)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    if not masks:
        assert torch.equal(perceptrons.outputs(layers, inputs), out)
    weight = torch.arange(out.numel(), dtype=out.dtype).view_as(out)
    gradient = torch.empty_like(numbers)
    trace.write_gradients(shape.layers_in(gradient), weight)
    (expected,) = torch.autograd.grad((weight * wanted).sum(), numbers)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-11)


def test_members_see_the_same_and_have_gradients_of_their_own_wherever_the_numbers_are() -> None:
    network = StackedMLP((0, 1), "net", (5, 8, 8, 2), members=2)
    for each in (network, copy.deepcopy(network), network.double()):
        inputs = torch.randn(2, 6, 5, dtype=each.numbers.dtype)
        for _ in range(2):
            weight = torch.randn(2, 2, 6, 2, dtype=each.numbers.dtype)
            out, trace = each.traced(inputs)
            each.set_gradient(trace, weight)
            seen = inputs.repeat_interleave(2, 0)
            plain = by_pytorch(Shape(4, (5, 8, 8, 2)), each.numbers, seen, []).view(2, 2, 6, 2)
            (wanted,) = torch.autograd.grad((weight * plain).sum(), each.numbers)
            torch.testing.assert_close(out, plain)
            torch.testing.assert_close(out, each(inputs))
            torch.testing.assert_close(each.numbers.grad, wanted)


def test_layers_are_views_wherever_the_numbers_are() -> None:
    network = StackedMLP((0, 1), "net", (5, 8, 8, 2), members=2)
    other = StackedMLP((2, 3), "net", (5, 8, 8, 2), members=2)
    loaded = StackedMLP((2, 3), "net", (5, 8, 8, 2), members=2)
    loaded.load_state_dict(network.state_dict())
    for each in (network, other, loaded, copy.deepcopy(network), network.double()):
        parts = [*each.weights, *each.biases]
        assert {part.untyped_storage().data_ptr() for part in parts} == {
            each.numbers.untyped_storage().data_ptr()
        }
        assert sum(part.numel() for part in parts) == each.numbers.numel()
        assert {part.dtype for part in parts} == {each.numbers.dtype}
    inputs = torch.randn(2, 3, 5)
    network.float()
    assert torch.equal(loaded(inputs), network(inputs))
    assert not torch.equal(loaded(inputs), other(inputs))
