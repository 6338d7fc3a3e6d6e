"""Perceptrons without autograd: their numbers stand in one array, their gradient is written by hand.

About half of a step of small networks is what happens around the products: a node of autograd an operation, an array a
result, an optimiser that goes through a dozen parameters. Here results are written over what nobody needs any more, and
nothing is computed that nobody asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

LARGE = 2**20
"""Results of a layer and network above which a CPU does one network after the other: its cache holds no more."""

ALL = slice(None)

_rectify = torch.ops.aten.threshold_backward.grad_input
"""Gradient of a ReLU, written to an array that is there."""


class Layer(NamedTuple):
    """Weights and biases of one layer of all networks."""

    weight: Float[Tensor, "networks _ _"]
    bias: Float[Tensor, "networks 1 _"]


@dataclass(frozen=True)
class Shape:
    """How many networks, and numbers of an input, units of every hidden layer, numbers of an output."""

    n_networks: int
    widths: tuple[int, ...]

    def __len__(self) -> int:
        """Return how many weights and biases there are."""
        return sum(self._sizes)

    def layers_in(self, numbers: Float[Tensor, " numbers"]) -> list[Layer]:
        """Return the layers whose weights and biases stand in an array one after the other, as views of it.

        A matrix lies with its longer side last: products of narrow layers are two to six times as fast then.
        """
        n, pieces, layers = self.n_networks, iter(torch.split(numbers, self._sizes)), []
        for n_in, n_out in pairwise(self.widths):
            weight, bias = next(pieces), next(pieces)
            wide = n_in <= n_out
            matrix = weight.view(n, n_in, n_out) if wide else weight.view(n, n_out, n_in).mT
            layers.append(Layer(matrix, bias.view(n, 1, n_out)))
        return layers

    @cached_property
    def _sizes(self) -> list[int]:
        shapes = pairwise(self.widths)
        return [self.n_networks * size for n_in, n_out in shapes for size in (n_in * n_out, n_out)]


def results(
    layers: Sequence[Layer],
    inputs: Float[Tensor, "networks rows width_in"],
    masks: Sequence[Float[Tensor, "networks rows _"]] = (),
) -> list[Float[Tensor, "networks rows _"]]:
    """Return the inputs, what every hidden layer makes of them, and the outputs.

    Args:
        layers: the networks.
        inputs: what each of them sees.
        masks: factors of the units of every hidden layer, not negative (dropout); empty: none.
    """
    found = [inputs]
    for number, (weight, bias) in enumerate(layers[:-1]):
        hidden = torch.baddbmm(bias, found[-1], weight)
        if masks:
            hidden.mul_(masks[number])
        found.append(hidden.relu_())
    weight, bias = layers[-1]
    if weight.shape[-1] > 1:
        return [*found, torch.baddbmm(bias, found[-1], weight)]
    out = inputs.new_empty(*inputs.shape[:-1], 1)
    # A batch of matrix-vector products rounds unlike a single one.
    for b, hidden, w, written in zip(
        *map(torch.unbind, (bias, found[-1], weight, out)), strict=True
    ):
        torch.addmm(b, hidden, w, out=written)
    return [*found, out]


def write_gradients(
    gradients: Sequence[Layer],
    layers: Sequence[Layer],
    below: Sequence[Float[Tensor, "networks rows _"]],
    of_outputs: Float[Tensor, "networks rows width_out"],
    mask_scale: float,
) -> None:
    """Write the gradients of weights and biases.

    Args:
        gradients: where they go.
        layers: the networks.
        below: what every layer saw.
        of_outputs: the gradient of the outputs.
        mask_scale: what the masks multiply a unit with that is not left out.
    """
    of_sums = of_outputs
    for number in reversed(range(len(layers))):
        weight, bias = gradients[number]
        torch.sum(of_sums, 1, keepdim=True, out=bias)
        if weight.shape[-1] == 1:
            factors = (below[number].mT, of_sums, weight)
            for seen, sums, written in zip(*map(torch.unbind, factors), strict=True):
                torch.mm(seen, sums, out=written)
        elif weight.is_contiguous():
            torch.bmm(below[number].mT, of_sums, out=weight)
        else:
            torch.bmm(of_sums.mT, below[number], out=weight.mT)
        if number:
            of_sums = torch.bmm(of_sums, layers[number].weight.mT)
            # A unit that is 0 had a sum below 0, or was left out.
            _rectify(of_sums, below[number], 0, grad_input=of_sums)
            if mask_scale != 1:
                of_sums.mul_(mask_scale)


def of_networks(layers: Sequence[Layer], networks: slice) -> Sequence[Layer]:
    """Return the layers of some of the networks, as views."""
    if networks == ALL:
        return layers
    return [Layer(weight[networks], bias[networks]) for weight, bias in layers]


def groups(inputs: Float[Tensor, "networks rows width_in"], layers: Sequence[Layer]) -> list[slice]:
    """Return which networks are computed at once; how a network is, does not depend on how many there are."""
    widest = max(layer.bias.shape[-1] for layer in layers)
    if inputs.device.type != "cpu" or inputs.shape[1] * widest <= LARGE:
        return [ALL]
    return [slice(i, i + 1) for i in range(len(inputs))]


def outputs(
    layers: Sequence[Layer], inputs: Float[Tensor, "networks rows width_in"]
) -> Float[Tensor, "networks rows width_out"]:
    """Return what the networks say, with nothing kept for a gradient; see `results`."""
    at_once = groups(inputs, layers)
    return _joined([results(of_networks(layers, each), inputs[each])[-1] for each in at_once])


def _joined(of_groups: Sequence[Tensor]) -> Tensor:
    return of_groups[0] if len(of_groups) == 1 else torch.cat(list(of_groups))


@dataclass(frozen=True)
class Trace:
    """What the layers saw on the way to the outputs: what a gradient follows from."""

    layers: Sequence[Layer]
    groups: Sequence[slice]
    below: Sequence[Sequence[Float[Tensor, "networks rows _"]]]
    mask_scale: float

    def write_gradients(
        self,
        gradients: Sequence[Layer],
        of_outputs: Float[Tensor, "networks rows width_out"],
    ) -> None:
        """Write the gradients of weights and biases to where they go, by that of the outputs."""
        for each, below in zip(self.groups, self.below, strict=True):
            written, layers = (of_networks(all_of, each) for all_of in (gradients, self.layers))
            write_gradients(written, layers, below, of_outputs[each], self.mask_scale)


def traced(
    layers: Sequence[Layer],
    inputs: Float[Tensor, "networks rows width_in"],
    masks: Sequence[Float[Tensor, "networks rows _"]] = (),
    mask_scale: float = 1.0,
) -> tuple[Float[Tensor, "networks rows width_out"], Trace]:
    """Return what the networks say, and what its gradient follows from.

    Args:
        layers: the networks.
        inputs: what each of them sees.
        masks: see `results`.
        mask_scale: see `write_gradients`.
    """
    found, kept, at_once = [], [], groups(inputs, layers)
    for each in at_once:
        some = of_networks(layers, each)
        *below, out = results(some, inputs[each], [mask[each] for mask in masks])
        kept.append(below)
        found.append(out)
    return _joined(found), Trace(layers, at_once, kept, mask_scale)
