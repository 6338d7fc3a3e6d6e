"""Perceptrons in one array: their gradient is autograd's, and every layer is a part of the array."""

import copy

import pytest
import torch
from torch import Tensor

from agents import perceptrons
from agents.networks import StackedMLP
from agents.perceptrons import Perceptrons, Shape

SHAPES = [Shape(2, (5, 7, 4, 3)), Shape(3, (4, 6, 1)), Shape(1, (6, 2))]


def draw(shape: Shape, rows: int = 9) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return numbers, inputs and masks that leave a third of the hidden units out."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    numbers = torch.randn(len(shape), **options).requires_grad_()
    inputs = torch.randn(shape.n_networks, rows, shape.widths[0], **options).requires_grad_()
    masks = [
        1.5 * (torch.rand(shape.n_networks, rows, width, **options) > 1 / 3)
        for width in shape.widths[1:-1]
    ]
    return numbers, inputs, masks


def plain(shape: Shape, numbers: Tensor, inputs: Tensor, masks: list[Tensor]) -> Tensor:
    """Return the outputs by PyTorch's own operations, one network after the other."""
    found = []
    for network, hidden in enumerate(inputs):
        layers = shape.layers_in(numbers)
        for number, (weight, bias) in enumerate(layers):
            hidden = hidden @ weight[network] + bias[network]
            if number + 1 < len(layers):
                hidden = torch.relu(hidden * masks[number][network] if masks else hidden)
        found.append(hidden)
    return torch.stack(found)


@pytest.mark.parametrize("large", [0, 2**20])
@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_autograds(
    shape: Shape, with_masks: bool, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptrons, "LARGE", large)
    numbers, inputs, masks = draw(shape)
    masks = masks if with_masks else []
    layers, scale = shape.layers_in(numbers.detach()), 1.5 if masks else 1.0
    out = Perceptrons.apply(numbers, inputs, layers, shape, masks, scale)
    wanted = plain(shape, numbers, inputs, masks)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(perceptrons.outputs(layers, inputs.detach(), masks), wanted.detach())
    weight = torch.arange(out.numel(), dtype=out.dtype).view_as(out)
    for found, expected in zip(
        torch.autograd.grad((weight * out).sum(), (numbers, inputs)),
        torch.autograd.grad((weight * wanted).sum(), (numbers, inputs)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_network_that_is_used_twice_has_the_gradient_of_both() -> None:
    network = StackedMLP((0, 1), "net", (5, 8, 1)).double()
    one, other = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    (whole,) = torch.autograd.grad(network(one).sum() + network(other).sum(), network.numbers)
    parts = [torch.autograd.grad(network(each).sum(), network.numbers)[0] for each in (one, other)]
    torch.testing.assert_close(whole, parts[0] + parts[1])


def test_a_gradient_without_autograd_is_autograds_wherever_the_numbers_are() -> None:
    network = StackedMLP((0, 1), "net", (5, 8, 8, 2), members=2)
    for each in (network, copy.deepcopy(network), network.double()):
        inputs = torch.randn(2, 6, 5, dtype=each.numbers.dtype)
        for _ in range(2):
            weight = torch.randn(2, 2, 6, 2, dtype=each.numbers.dtype)
            out, trace = each.traced(inputs)
            each.set_gradient(trace, weight)
            (wanted,) = torch.autograd.grad((weight * each(inputs)).sum(), each.numbers)
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
