"""Gradient steps a second of the offline agents, against the structure of the published code, written plainly.

`python -m benchmarks.offline_speed` writes `results/offline_speed.json`. Equal networks, batches and dropout; all take
turns in one process. The published structure: PyTorch's layers one network at a time, batches gathered by NumPy and
copied every step, Adam as it comes, and every loss fetched as a number each step. What no code can get below are the
networks' matrix products: they are measured alone, too, and their share of the machine's matmul rate stands beside.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from agents import cpl, ipl, piql
from benchmarks.bare_products import products_of
from benchmarks.offline import Scale
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.data.comparisons import Comparisons

Step = Callable[[], Any]
PUBLISHED, ONE, FIVE = "published structure, one seed", "ours, one seed", "ours, five seeds"
BARE = {ONE: "products of one seed, nothing else", FIVE: "products of five seeds, nothing else"}
MATMUL, MATMUL_SIDE = "matmul", 2_048


@dataclass(frozen=True)
class Config:
    """How long to measure, and how large the trainings are; the sizes are the published ones."""

    agents: tuple[str, ...] = ("cpl", "piql", "ipl")
    steps: int = 5
    """Gradient steps of a repeat."""
    repeats: int = 5
    warm_up: int = 2
    threads: int | None = None
    """Threads of torch; None: its own choice, all cores."""
    clock: Literal["wall", "cpu"] = "wall"
    """`cpu`: time that the processor spent on us, with one thread; for a machine that others use, too."""
    n_pairs: int = 100
    n_steps: int = 50
    """Steps of a segment."""
    small: bool = False
    """The sizes of `benchmarks.offline` instead of the published ones."""
    results: Path = RESULTS

    def __post_init__(self) -> None:
        """Refuse processor time of several threads, which adds up and says nothing of speed."""
        if self.clock == "cpu" and self.threads != 1:
            raise ValueError("processor time is measured with one thread; add --threads 1")


def random_pairs(config: Config) -> Comparisons:
    """Return pairs of the size that is measured; what they hold does not matter."""
    rng = np.random.default_rng(0)
    shape = (2 * config.n_pairs, config.n_steps)
    return Comparisons(
        obs=rng.normal(size=(*shape, 39)).astype(np.float32),
        action=rng.uniform(-1, 1, (*shape, 4)).astype(np.float32),
        pairs=np.arange(shape[0]).reshape(-1, 2),
        label=np.arange(config.n_pairs, dtype=np.float32) % 2,
        weight=np.ones(config.n_pairs, np.float32),
    )


def mlp(widths: tuple[int, ...], dropout: float = 0.0, tanh: bool = False) -> nn.Sequential:
    """Return a perceptron as the published code builds it."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(n_in, n_out), *([nn.Dropout(dropout)] if dropout else []), nn.ReLU()]
    layers = layers[: -2 if dropout else -1]
    return nn.Sequential(*layers, *([nn.Tanh()] if tanh else []))


class Ensemble(nn.Module):
    """Two critics with stacked weights, as the published code has them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        shapes = list(zip(widths, widths[1:], strict=False))
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(2, *each) / each[0] ** 0.5) for each in shapes]
        )
        self.biases = nn.ParameterList(
            [nn.Parameter(torch.zeros(2, 1, each[1])) for each in shapes]
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return both critics' values, [2, rows]."""
        hidden = inputs.repeat(2, 1, 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if number + 1 < len(self.weights):
                hidden = torch.relu(hidden)
        return hidden.squeeze(-1)


class Loader:
    """Batches of pairs, gathered by NumPy and turned into tensors every step."""

    def __init__(self, data: Comparisons, size: int, window: int | None = None) -> None:
        self._data, self._size, self._window = data, size, window
        self._rng = np.random.default_rng(0)

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return observations and actions of first and second segments, [2, pairs, steps, ...], and labels."""
        rows = self._rng.permutation(len(self._data))[: self._size]
        steps = slice(None)
        if self._window is not None:
            start = int(self._rng.integers(0, self._data.n_steps - self._window + 1))
            steps = slice(start, start + self._window)
        segments = self._data.pairs[rows].T
        arrays = (
            self._data.obs[segments, steps],
            self._data.action[segments, steps],
            self._data.label[rows],
        )
        obs, action, label = (torch.from_numpy(np.ascontiguousarray(each)) for each in arrays)
        return obs, action, label


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take a step and fetch the loss, as the published code does."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def published_cpl(config: cpl.Config, data: Comparisons) -> Step:
    """Return one step of CPL after its warm start."""
    actor = mlp((39, *config.hidden, 4), config.dropout, tanh=True)
    optimizer = torch.optim.Adam(actor.parameters(), config.learning_rate)
    load = Loader(data, config.batch_size)

    def step() -> None:
        obs, action, label = load()
        log_prob = -torch.square(actor(obs.flatten(0, 1)) - action.flatten(0, 1)).sum(-1)
        first, second = torch.chunk(0.1 * log_prob.sum(-1), 2)
        logits = (second - 0.5 * first, first - 0.5 * second)
        each = [
            torch.log(torch.exp(-m) + torch.exp(-x - m)) + m
            for x in logits
            for m in [(-x).clamp(min=0)]
        ]
        loss = (label * each[0] + (1 - label) * each[1]).mean()
        accuracy = ((second > first) == torch.round(label)).float().mean()
        descend(optimizer, loss)
        (-log_prob).mean().item()
        accuracy.item()

    return step


def published_piql(config: piql.Config, data: Comparisons) -> Step:
    """Return one step of P-IQL while its reward is learned."""
    hidden, rate = config.iql.hidden, config.iql.learning_rate
    actor = mlp((39, *hidden, 4), config.iql.dropout, tanh=True)
    critic, target = Ensemble((43, *hidden, 1)), Ensemble((43, *hidden, 1)).requires_grad_(False)
    value, reward_net = mlp((39, *hidden, 1)), mlp((43, *config.reward_hidden, 1))
    optimizers = {
        net: torch.optim.Adam(net.parameters(), rate) for net in (actor, critic, value, reward_net)
    }
    load = Loader(data, config.batch_size)

    def step() -> None:
        obs, action, label = load()
        obs, action = obs.flatten(0, 1), action.flatten(0, 1)
        reward = reward_net(torch.cat([obs, action], -1)).squeeze(-1)
        first, second = torch.chunk(reward.sum(-1), 2)
        descend(optimizers[reward_net], F.binary_cross_entropy_with_logits(second - first, label))
        reward = reward.detach()[:, :-1].reshape(-1)
        next_obs = obs[:, 1:].reshape(-1, 39)
        obs, action = obs[:, :-1].reshape(-1, 39), action[:, :-1].reshape(-1, 4)
        inputs = torch.cat([obs, action], -1)
        with torch.no_grad():
            target_q = target(inputs).min(0)[0]
        v = value(obs).squeeze(-1)
        gap = target_q - v
        descend(optimizers[value], (torch.abs(0.7 - (gap < 0).float()) * gap**2).mean())
        with torch.no_grad():
            weight = torch.exp((target_q - v) / 0.3333).clamp(max=100)
        cloning = F.mse_loss(actor(obs), action, reduction="none").sum(-1)
        descend(optimizers[actor], (weight * cloning).mean())
        with torch.no_grad():
            wanted = reward + 0.99 * value(next_obs).squeeze(-1)
        q = critic(inputs)
        descend(optimizers[critic], F.mse_loss(q, wanted.expand_as(q)))
        [each.mean().item() for each in (v, q, gap, reward)]
        _follow(target, critic)

    return step


def published_ipl(config: ipl.Config, data: Comparisons) -> Step:
    """Return one step of IPL on top of IQL."""
    hidden, rate = config.hidden, config.learning_rate
    actor, log_std = mlp((39, *hidden, 4), tanh=True), nn.Parameter(torch.zeros(4))
    critic, target = Ensemble((43, *hidden, 1)), Ensemble((43, *hidden, 1)).requires_grad_(False)
    value = mlp((39, *hidden, 1))
    actor_optim = torch.optim.Adam([*actor.parameters(), log_std], rate)
    critic_optim, value_optim = (
        torch.optim.Adam(net.parameters(), rate) for net in (critic, value)
    )
    load = Loader(data, config.batch_size, config.window)

    def step() -> None:
        obs, action, label = load()
        shape = (2, 2, len(label), obs.shape[2] - 1)
        next_obs = obs[:, :, 1:].reshape(-1, 39)
        obs, action = obs[:, :, :-1].reshape(-1, 39), action[:, :, :-1].reshape(-1, 4)
        inputs = torch.cat([obs, action], -1)
        with torch.no_grad():
            target_q = target(inputs).min(0)[0]
        gap = target_q - value(obs).squeeze(-1)
        descend(value_optim, (torch.abs(0.75 - (gap < 0).float()) * gap**2).mean())
        with torch.no_grad():
            next_v = value(next_obs).squeeze(-1)
        reward = critic(inputs) - 0.99 * next_v
        first, second = reward.view(shape).sum(-1).unbind(1)
        loss = F.binary_cross_entropy_with_logits(second - first, label.expand_as(first))
        descend(critic_optim, loss + 3 * (reward**2).mean())
        with torch.no_grad():
            weight = torch.exp((target_q - value(obs).squeeze(-1)) / 0.3333).clamp(max=100)
        policy = torch.distributions.Normal(actor(obs), log_std.clamp(-5, 2).exp())
        log_prob: Tensor = policy.log_prob(action)  # type: ignore[no-untyped-call]
        descend(actor_optim, (weight * -log_prob.sum(-1)).mean())
        reward.mean().item()
        _follow(target, critic)

    return step


def _follow(target: nn.Module, online: nn.Module) -> None:
    with torch.no_grad():
        for behind, ahead in zip(target.parameters(), online.parameters(), strict=True):
            behind.data.copy_(0.005 * ahead.data + (1 - 0.005) * behind.data)


def contestants(name: str, config: Config, data: Comparisons) -> dict[str, Step]:
    """Return one gradient step of every way to train an agent."""
    seeds = tuple(range(5))
    width, n_pairs = Scale().width, Scale().pairs // (2 if name == "piql" else 1)
    hidden: dict[str, Any] = {"hidden": (width, width)} if config.small else {}
    pairs: dict[str, Any] = {"batch_size": n_pairs} if config.small else {}
    shared: dict[str, Any] = {"pairs": Path(), "device": "cpu", "steps": 500_000, **pairs}
    one: Any
    agent: Callable[[Any, Comparisons], Any]
    published: Callable[[Any, Comparisons], Step]
    if name == "cpl":
        one, agent, published = cpl.Config(bc_steps=0, **hidden, **shared), cpl.CPL, published_cpl
    elif name == "ipl":
        one, agent, published = ipl.Config(**hidden, **shared), ipl.IPL, published_ipl
    else:
        core = replace(piql.Config(pairs=Path()).iql, **hidden)
        reward: dict[str, Any] = {"reward_hidden": core.hidden}
        one, agent, published = piql.Config(iql=core, **reward, **shared), piql.PIQL, published_piql
    return {
        PUBLISHED: published(one, data),
        ONE: agent(one, data).update,
        FIVE: agent(replace(one, seeds=seeds), data).update,
    }


def measure(config: Config, found: dict[str, Step]) -> dict[str, list[float]]:
    """Return the seconds of a gradient step in every repeat, by contestant, and last of a large matrix product."""
    square, product = torch.ones(2, MATMUL_SIDE, MATMUL_SIDE)
    # Into an array that is there: the fastest arithmetic that PyTorch has here.
    steps: dict[str, Step] = {**found, MATMUL: partial(torch.mm, square, square, out=product)}
    seconds: dict[str, list[float]] = {each: [] for each in steps}
    clock = time.process_time if config.clock == "cpu" else time.perf_counter
    for repeat in range(-1, config.repeats):
        n_steps = config.warm_up if repeat < 0 else config.steps
        for each, step in steps.items():
            started = clock()
            for _ in range(n_steps):
                step()
            if repeat >= 0:
                seconds[each].append((clock() - started) / n_steps)
    return seconds


def flops_of(step: Step) -> int:
    """Return the multiplications and additions in the matrix products of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def records_of(
    config: Config, name: str, seconds: dict[str, list[float]], flops: dict[str, int]
) -> list[Record]:
    """Return one record a contestant; ratios are medians over repeats of both in the same repeat.

    Args:
        config: how it was measured.
        name: the agent.
        seconds: what `measure` found.
        flops: operations of a step, by contestant.
    """
    rate = 2 * MATMUL_SIDE**3 / median(seconds[MATMUL])
    size = (
        "networks and batches of the table above"
        if config.small
        else "the published networks and batches"
    )
    clock = "processor" if config.clock == "cpu" else "wall-clock"
    scale = (
        f"{size}, segments of {config.n_steps} steps, dropout as published, {torch.get_num_threads()} threads, "
        f"{clock} time; median of {config.repeats} repeats of {config.steps} steps"
    )
    records = []
    for each, n_flops in flops.items():
        values = seconds[each]
        against = {
            other: median(b / a for a, b in zip(values, seconds[other], strict=True))
            for other in flops
        }
        metrics = {
            "steps/s": 1 / median(values),
            "slowest": 1 / max(values),
            "fastest": 1 / min(values),
            "times published": against[PUBLISHED],
            "time of one seed": 1 / against[ONE],
            "GFLOP a step": n_flops / 1e9,
            "of the matmul rate": n_flops / median(values) / rate,
        }
        records.append(
            Record.now(task=name, method=each, metrics=metrics, seconds=sum(values) * config.steps, scale=scale)
        )  # fmt: skip
    return records


def main(config: Config) -> list[Record]:
    """Measure and write the records."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    records = []
    for name in config.agents:
        found = contestants(name, config, random_pairs(config))
        found |= {bare: products_of(found[each]) for each, bare in BARE.items()}
        flops = {each: flops_of(step) for each, step in found.items()}
        records += records_of(config, name, measure(config, found), flops)
        result = "offline_speed_small" if config.small else "offline_speed"
        write_records(result, records, config.results)
    return records


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
