"""Several equal networks as one: stacked weights, all outputs in one call."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

LEAK = 0.01
"""Slope of LeakyReLU below 0."""


class StackedMLP(nn.Module):
    """Multi-layer perceptrons of one shape, LeakyReLU inside, tanh at the end, one output each.

    Args:
        width_in: numbers of an input.
        width: units of a hidden layer.
        depth: hidden layers.
        generators: one source of initial weights a member, so that members differ.
    """

    def __init__(
        self, width_in: int, width: int, depth: int, generators: list[torch.Generator]
    ) -> None:
        super().__init__()
        widths = [width_in, *[width] * depth, 1]
        layers = list(zip(widths, widths[1:], strict=False))
        draws = [[_initial(n_in, n_out, each) for n_in, n_out in layers] for each in generators]
        stacked = [torch.stack(layer) for layer in zip(*draws, strict=True)]
        # The last row of a draw is the bias.
        self.weights = nn.ParameterList([draw[:, :-1].clone() for draw in stacked])
        self.biases = nn.ParameterList([draw[:, -1:].clone() for draw in stacked])
        # The same tensors: asking a ParameterList for each costs as much as a one-row product.
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def forward(
        self, inputs: Float[Tensor, "members rows width_in"]
    ) -> Float[Tensor, "members rows"]:
        """Return each member's output for its own rows, in [-1, 1]."""
        if inputs.device.type != "cpu":
            return outputs_of(inputs, self._layers, torch.baddbmm)
        # A CPU is done with one plain product a member before it is done with a batched one.
        of_member = zip(*(zip(*layer, strict=True) for layer in self._layers), strict=True)
        members = zip(inputs, of_member, strict=True)
        return torch.stack([outputs_of(rows, layers, torch.addmm) for rows, layers in members])

    def few_rows(
        self, rows: Float[np.ndarray, "rows width_in"]
    ) -> Float[np.ndarray, "members rows"]:
        """Return each member's output for the same few rows, on a CPU; NumPy is done before torch has begun."""
        hidden: NDArray[np.float32] = rows[None]
        *inner, (last_weight, last_bias) = self._arrays
        for weight, bias in inner:
            hidden = hidden @ weight + bias
            np.maximum(hidden, LEAK * hidden, out=hidden)
        out: NDArray[np.float32] = np.tanh(hidden @ last_weight + last_bias)[..., 0]
        return out

    @functools.cached_property
    def _arrays(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        # Views of the weights: what the optimiser or a loaded state writes there shows here.
        return [(weight.detach().numpy(), bias.detach().numpy()) for weight, bias in self._layers]


def outputs_of(
    inputs: Float[Tensor, "*members rows width_in"],
    layers: Sequence[tuple[Tensor, Tensor]],
    product: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "*members rows"]:
    """Return what layers of weight and bias make of rows; `product(bias, rows, weight)` adds and multiplies."""
    hidden = inputs
    *inner, (last_weight, last_bias) = layers
    for weight, bias in inner:
        hidden = nn.functional.leaky_relu_(product(bias, hidden, weight), LEAK)
    return torch.tanh(product(last_bias, hidden, last_weight)).squeeze(-1)


def _initial(n_in: int, n_out: int, generator: torch.Generator) -> Float[Tensor, "rows n_out"]:
    # PyTorch's own rule for nn.Linear, bias included: uniform within 1 / sqrt(fan in).
    bound = 1 / math.sqrt(n_in)
    return (torch.rand(n_in + 1, n_out, generator=generator) * 2 - 1) * bound
