"""Networks of several seeds as one: stacked weights, one batched product a layer.

Axis 0 of everything is the seed. A seed's numbers are those that it would have alone, bit for bit on one machine. No
network knows autograd: losses say their gradient by its outputs, and `set_gradient` does the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.draws import Dropout, torch_generator
from agents.learning import by_seed
from agents.perceptrons import Layer, Shape, Trace, of_networks, outputs, traced

ActorKind = Literal["deterministic", "gaussian"]

LOG_STD_RANGE = (-5.0, 2.0)
"""Bounds of a Gaussian actor's log standard deviation (IPL)."""


class StackedMLP(nn.Module):
    """Perceptrons of one shape with ReLU inside, orthogonal initial weights and zero biases (CPL, IPL).

    Args:
        seeds: one source of initial weights each.
        name: tells this network's initial weights from those of others.
        widths: numbers of an input, units of every hidden layer, numbers of an output.
        members: networks a seed, all given the same inputs.
        dropout: what leaves out hidden units in training; None: nothing.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        name: str,
        widths: Sequence[int],
        members: int = 1,
        dropout: Dropout | None = None,
    ) -> None:
        super().__init__()
        self._members, self._dropout = members, dropout
        draws = [torch_generator(seed, f"{name} {m}") for seed in seeds for m in range(members)]
        self._shape = Shape(len(draws), tuple(widths))
        self._seen: list[Layer] = []
        self._seen_at = 0
        self._gradients: list[Layer] = []
        self._gradients_at = 0
        self.numbers = nn.Parameter(torch.zeros(len(self._shape)))
        for (weight, _), n_in_out in zip(self._layers(), pairwise(widths), strict=True):
            for matrix, each in zip(weight, draws, strict=True):
                matrix.copy_(_orthogonal(*n_in_out, each))

    @property
    def weights(self) -> list[Float[Tensor, "networks n_in n_out"]]:
        """Return the weights, layer by layer, as views."""
        return [layer.weight for layer in self._layers()]

    @property
    def biases(self) -> list[Float[Tensor, "networks 1 n_out"]]:
        """Return the biases, layer by layer, as views."""
        return [layer.bias for layer in self._layers()]

    def forward(
        self, inputs: Float[Tensor, "seeds rows width_in"]
    ) -> Float[Tensor, "seeds members rows width_out"]:
        """Return every member's outputs."""
        out = outputs(self._layers(), self._seen_by_members(inputs))
        return out.view(len(inputs), self._members, *out.shape[1:])

    def traced(
        self, inputs: Float[Tensor, "seeds rows width_in"], step: int | None = None
    ) -> tuple[Float[Tensor, "seeds members rows width_out"], Trace]:
        """Return what `forward` does, and what `set_gradient` wants.

        With the number of a training step, some units are left out.
        """
        masks, scale = self._masks(step, inputs.shape[1])
        out, trace = traced(self._layers(), self._seen_by_members(inputs), masks, scale)
        return out.view(len(inputs), self._members, *out.shape[1:]), trace

    def set_gradient(
        self, trace: Trace, of_outputs: Float[Tensor, "seeds members rows width_out"]
    ) -> None:
        """Set the gradient that an optimiser goes down, by that of the outputs."""
        grad = self.numbers.grad
        if grad is None:
            grad = self.numbers.grad = torch.empty_like(self.numbers)
        if self._gradients_at != grad.data_ptr():
            self._gradients_at = grad.data_ptr()
            self._gradients = self._shape.layers_in(grad)
        trace.write_gradients(self._gradients, of_outputs.flatten(0, 1))

    def of_seed(
        self, inputs: Float[Tensor, "rows width_in"], seed: int
    ) -> Float[Tensor, "members rows width_out"]:
        """Return the outputs of the networks of one seed, the `seed`-th of those given."""
        rows = slice(seed * self._members, (seed + 1) * self._members)
        return outputs(of_networks(self._layers(), rows), inputs.expand(self._members, -1, -1))

    def layers_of(
        self, seed: int
    ) -> tuple[list[Float[np.ndarray, "n_in n_out"]], list[Float[np.ndarray, " n_out"]]]:
        """Return weights and biases of the first network of one seed, layer by layer."""
        row = seed * self._members
        weights = [weight[row].cpu().numpy().copy() for weight in self.weights]
        return weights, [bias[row, 0].cpu().numpy().copy() for bias in self.biases]

    def _seen_by_members(
        self, inputs: Float[Tensor, "seeds rows width_in"]
    ) -> Float[Tensor, "networks rows width_in"]:
        return inputs if self._members == 1 else inputs.repeat_interleave(self._members, 0)

    def _masks(
        self, step: int | None, n_rows: int
    ) -> tuple[list[Float[Tensor, "seeds rows _"]], float]:
        """Return the masks of a training step, and what they multiply a unit with that is not left out."""
        if step is None or self._dropout is None or not self._dropout.rate:
            return [], 1.0
        assert self._members == 1, "only actors have dropout, and a seed has one"
        inner = enumerate(self._shape.widths[1:-1])
        masks = [self._dropout.at(step, number, n_rows, width) for number, width in inner]
        return masks, self._dropout.scale

    def _layers(self) -> list[Layer]:
        # `to`, `double` and `deepcopy` put the numbers elsewhere.
        if self._seen_at != self.numbers.data_ptr():
            self._seen_at = self.numbers.data_ptr()
            self._seen = self._shape.layers_in(self.numbers.detach())
        return self._seen


@dataclass(frozen=True)
class ActorTrace:
    """What the gradient of log pi(a|s) follows from.

    Attributes:
        body: of the perceptron.
        mean: mean action, the tanh of what the perceptron says.
        gap: action - mean.
        pull: gradient of log pi(a|s) by the mean.
    """

    body: Trace
    mean: Float[Tensor, "seeds rows action"]
    gap: Float[Tensor, "seeds rows action"]
    pull: Float[Tensor, "seeds rows action"]


class Actor(nn.Module):
    """A policy: the mean action, and for a Gaussian one a spread that does not depend on the state.

    Args:
        seeds: which seeds.
        obs_dim: numbers of an observation.
        action_dim: numbers of an action.
        hidden: units of every hidden layer.
        kind: `deterministic` (CPL) or `gaussian` (IPL); the mean passes through tanh in both.
        dropout: what leaves out hidden units in training.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        kind: ActorKind,
        dropout: Dropout | None = None,
    ) -> None:
        super().__init__()
        widths = (obs_dim, *hidden, action_dim)
        self.body = StackedMLP(seeds, "actor", widths, dropout=dropout)
        # The mean squared error is, up to constants, the likelihood under a spread of one.
        self.log_std = (
            nn.Parameter(torch.zeros(len(seeds), 1, action_dim)) if kind == "gaussian" else None
        )

    def act(self, obs: Float[Tensor, "rows obs"], seed: int) -> Float[Tensor, "rows action"]:
        """Return the actions of one seed's policy, without noise."""
        return torch.tanh(self.body.of_seed(obs, seed).squeeze(0))

    def traced(
        self,
        obs: Float[Tensor, "seeds rows obs"],
        action: Float[Tensor, "seeds rows action"],
        step: int | None = None,
    ) -> tuple[Float[Tensor, "seeds rows"], ActorTrace]:
        """Return log pi(a|s), and what `set_gradient` wants.

        Of a deterministic policy -|mean - a|^2, without factor or constant (CPL). With the number of a training step,
        under dropout.
        """
        sums, trace = self.body.traced(obs, step)
        mean = by_seed(torch.tanh, sums.squeeze(1))
        gap = action - mean
        if self.log_std is None:
            return -torch.square(gap).sum(-1), ActorTrace(trace, mean, gap, 2 * gap)
        log_std = self.log_std.clamp(*LOG_STD_RANGE)
        pull = gap * by_seed(torch.exp, -2 * log_std)
        log_prob = -(0.5 * gap * pull + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
        return log_prob, ActorTrace(trace, mean, gap, pull)

    def set_gradient(self, trace: ActorTrace, of_log_prob: Float[Tensor, "seeds rows"]) -> None:
        """Set the gradient that an optimiser goes down, by that of log pi(a|s)."""
        weight = of_log_prob.unsqueeze(-1)
        if self.log_std is not None:
            low, high = LOG_STD_RANGE
            within = (low < self.log_std) & (self.log_std < high)
            misfit = trace.gap * trace.pull - 1
            self.log_std.grad = (weight * misfit).sum(1, keepdim=True) * within
        of_sums = weight * trace.pull * (1 - torch.square(trace.mean))
        self.body.set_gradient(trace.body, of_sums.unsqueeze(1))

    def clone(
        self,
        obs: Float[Tensor, "seeds rows obs"],
        action: Float[Tensor, "seeds rows action"],
        weight: Float[Tensor, "seeds rows"],
        step: int | None = None,
    ) -> Float[Tensor, " seeds"]:
        """Return the loss -sum(weight log pi(a|s)) (IQL eq. 7), and set its gradient; arguments as of `traced`."""
        log_prob, trace = self.traced(obs, action, step)
        self.set_gradient(trace, -weight)
        return -(weight * log_prob).sum(-1)


def _orthogonal(n_in: int, n_out: int, generator: torch.Generator) -> Float[Tensor, "n_in n_out"]:
    weight = torch.empty(n_in, n_out)
    nn.init.orthogonal_(weight, generator=generator)
    return weight


def polyak_update(target: nn.Module, online: nn.Module, share: float) -> None:
    """Move `share` of the way from the target's weights to the online ones."""
    with torch.no_grad():
        for behind, ahead in zip(target.parameters(), online.parameters(), strict=True):
            behind.lerp_(ahead, share)


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Return Adam as CPL and IPL have it (PyTorch's defaults), in one fused call."""
    return torch.optim.Adam(network.parameters(), learning_rate, fused=True)
