"""What learning the reward costs: relabelling a replay buffer, and a fit against a loop over members.

`python -m benchmarks.reward_learning` writes `results/relabelling.json` and `results/fitting.json`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import gymnasium as gym
import numpy as np
import torch
import tyro
from jaxtyping import Float
from stable_baselines3.common.buffers import ReplayBuffer
from torch import Tensor, nn

from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.reward.config import EnsembleConfig, FitConfig
from vlp_gym.reward.ensemble import RewardEnsemble
from vlp_gym.reward.loss import preference_loss
from vlp_gym.reward.preferences import Preferences
from vlp_gym.sb3 import relabel
from vlp_gym.types import Task
from vlp_gym.wrappers.encoding import Encoding
from vlp_gym.wrappers.shared import SharedFeedback

OBS_DIM, ACTION_DIM = 39, 4
"""Numbers of an observation and an action of Meta-World."""


@dataclass(frozen=True)
class Config:
    """How much to measure; the defaults take some minutes on two cores."""

    transitions: int = 1_000_000
    """Rows of the replay buffer."""
    labels: int = 1_000
    """Pairs that a fit has."""
    segment_length: int = 50
    updates: int = 50
    """Gradient steps of a fit."""
    repeats: int = 3
    device: str = "cpu"
    """Where the ensemble is; the replay buffer is in main memory."""
    seed: int = 0
    results: Path = RESULTS


def measure_relabelling(config: Config) -> list[float]:
    """Return the seconds of every relabelling of a full buffer, the first one left out."""
    space = gym.spaces.Box(-1, 1, (OBS_DIM,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32)
    replay = ReplayBuffer(config.transitions, space, action_space, "cpu")
    rng = np.random.default_rng(config.seed)
    for rows in (replay.observations, replay.actions):
        rows[:] = rng.uniform(-1, 1, rows.shape)
    replay.full = True
    shared = SharedFeedback(
        Encoding(space, action_space),
        [Task("measure")],
        OracleLabeler(),
        FeedbackConfig(),
        config.device,
    )
    shared.loop.version = 1  # as after a fit: what is paid is what the ensemble says
    seconds = []
    for _ in range(config.repeats + 1):
        started = time.perf_counter()
        relabel(replay, shared)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


class LoopedEnsemble:
    """Members one after the other, with one optimiser for all: what B-Pref's ensemble is made of."""

    def __init__(
        self, members: int, width: int, depth: int, config: FitConfig, device: str
    ) -> None:
        self._device = torch.device(device)
        widths = [OBS_DIM + ACTION_DIM, *[width] * depth]
        self._members = [_network(widths).to(self._device) for _ in range(members)]
        weights = [weight for member in self._members for weight in member.parameters()]
        self._optimizer = torch.optim.Adam(weights, config.lr)

    def update(
        self,
        inputs: Float[Tensor, "pairs 2 steps width"],
        label: Float[Tensor, " pairs"],
        batch: int,
    ) -> None:
        """Take one gradient step, each member on a batch of its own."""
        self._optimizer.zero_grad()
        loss = torch.zeros((), device=self._device)
        for member in self._members:
            picked = torch.randint(len(label), (batch,), device=self._device)
            reward = member(inputs[picked]).squeeze(-1)
            loss = loss + preference_loss(reward[:, 0], reward[:, 1], label[picked])
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def _network(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(n_in, n_out), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1), nn.Tanh())


def measure_fits(config: Config) -> dict[str, list[float]]:
    """Return the milliseconds an update of every repeat, by method; the methods take turns."""
    rng = np.random.default_rng(config.seed)
    shape = (config.labels, 2, config.segment_length)
    preferences = Preferences(
        rng.uniform(-1, 1, (*shape, OBS_DIM)).astype(np.float32),
        rng.uniform(-1, 1, (*shape, ACTION_DIM)).astype(np.float32),
        rng.integers(2, size=config.labels).astype(np.float32),
    )
    whole = FitConfig(
        max_updates=config.updates,
        max_epochs=config.updates,
        stop_accuracy=1.0,
        steps_sampled=None,
    )
    part = FitConfig(max_updates=config.updates, max_epochs=config.updates, stop_accuracy=1.0)
    shape_of_net = EnsembleConfig()
    stacked = RewardEnsemble(OBS_DIM, ACTION_DIM, shape_of_net, config.seed, config.device)
    looped = LoopedEnsemble(
        shape_of_net.members, shape_of_net.width, shape_of_net.depth, whole, config.device
    )
    rows = np.concatenate([preferences.obs, preferences.action], -1)
    inputs, label = (torch.from_numpy(each).to(config.device) for each in (rows, preferences.label))

    def loop() -> None:
        for _ in range(config.updates):
            looped.update(inputs, label, whole.batch)

    methods: dict[str, Callable[[], object]] = {
        "a loop over members, all steps": loop,
        "stacked, all steps": lambda: stacked.fit(preferences, whole),
        f"stacked, {part.steps_sampled} steps of a segment (ours)": lambda: stacked.fit(
            preferences, part
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(config.repeats + 1):
        for name, method in methods.items():
            started = time.perf_counter()
            method()
            _wait_for(config.device)
            if repeat:
                times[name].append(1000 * (time.perf_counter() - started) / config.updates)
    return times


def _wait_for(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    threads = f"{torch.get_num_threads()} threads" if config.device == "cpu" else config.device
    seconds = measure_relabelling(config)
    relabelled = Record.now(
        task="-",
        method="relabelling",
        seed=config.seed,
        scale=f"three members of 3 x 256, {threads}; median of {config.repeats} repeats",
        metrics={
            "transitions": config.transitions,
            "seconds": median(seconds),
            "fastest": min(seconds),
            "slowest": max(seconds),
        },
        seconds=time.perf_counter() - started,
    )
    print(write_records("relabelling", [relabelled], config.results))
    times = measure_fits(config)
    baseline = next(iter(times.values()))
    records = [
        Record.now(
            task="-",
            method=name,
            seed=config.seed,
            scale=(
                f"batches of {FitConfig.batch} of {config.labels:,} pairs of {config.segment_length} steps, three "
                f"members of 3 x 256, {threads}; median of {config.repeats} repeats of {config.updates} updates"
            ),
            metrics={
                "ms an update": median(values),
                "fastest": min(values),
                "slowest": max(values),
                "times as fast": median(a / b for a, b in zip(baseline, values, strict=True)),
            },
            seconds=time.perf_counter() - started,
        )
        for name, values in times.items()
    ]
    print(write_records("fitting", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
