"""What the feedback of a long run keeps in memory, beside the replay buffer of Stable-Baselines3.

`python -m benchmarks.memory` writes `results/memory.json`: an agent acts, is asked about, and its rewards are learned
and written back, for a million steps. Both agents, with feedback and without, train once an episode instead of once a
step: what PyTorch's optimisers load at their first step is then in both.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import SAC

import vlp_gym  # noqa: F401  registers vlp/*
from benchmarks.schema import RESULTS, Record, write_records
from vlp_gym.sb3 import RelabelReplay
from vlp_gym.tasks.metaworld import find_task

MB = 1e6


@dataclass(frozen=True)
class Config:
    """How long a run; at the defaults two agents act for a million steps each, one after the other.

    What feedback keeps grows with labels, not with steps: `--steps 200000 --session-every 5000` has as many labels, in
    a fraction of the time.
    """

    task: str = "DoorClose"
    labeler: str = "vlp"
    steps: int = 1_000_000
    parts: int = 10
    """Looks at the memory, evenly spread."""
    queries: int = 100
    """Queries of a feedback session."""
    session_every: int = 25_000
    """Steps between sessions."""
    max_episode_steps: int = 500
    threads: int = 1
    """Threads of torch."""
    seed: int = 0
    results: Path = RESULTS


def resident_bytes() -> int:
    """Return the bytes of main memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bytes_of_replay(agent: SAC) -> int:
    """Return the bytes of the rows of a replay buffer that were written; the rest is in no memory yet."""
    replay = agent.replay_buffer
    assert replay is not None
    arrays = [value for value in vars(replay).values() if isinstance(value, np.ndarray)]
    return sum(array.nbytes // len(array) * replay.size() for array in arrays)


def make_agent(env: gym.Env[Any, Any], config: Config) -> SAC:
    """Return an agent that takes a gradient step an episode."""
    return SAC(
        "MlpPolicy",
        env,
        learning_starts=config.max_episode_steps // 2,
        train_freq=config.max_episode_steps,
        gradient_steps=1,
        buffer_size=config.steps,
        seed=config.seed,
        device="cpu",
    )


def bytes_of_bare(config: Config) -> int:
    """Return what a process holds in which the agent lives on the simulator's reward, less its replay buffer."""
    torch.set_num_threads(config.threads)
    agent = make_agent(gym.make(f"vlp/{find_task(config.task).name}", reward="env"), config)
    agent.learn(2 * config.max_episode_steps)
    return resident_bytes() - bytes_of_replay(agent)


def bytes_with_feedback(config: Config) -> list[tuple[int, int]]:
    """Return pairs of steps and what a process holds in which the agent has feedback, less its replay buffer."""
    torch.set_num_threads(config.threads)
    env = gym.make(
        f"vlp/{find_task(config.task).name}",
        labeler=config.labeler,
        max_episode_steps=config.max_episode_steps,
        feedback={
            "queries_per_session": config.queries,
            "session_every": config.session_every,
            "budget": config.queries * (config.steps // config.session_every),
        },
    )
    agent = make_agent(env, config)
    found = []
    for part in range(1, config.parts + 1):
        goal = config.steps * part // config.parts
        agent.learn(goal - agent.num_timesteps, RelabelReplay(), reset_num_timesteps=False)
        found.append((agent.num_timesteps, resident_bytes() - bytes_of_replay(agent)))
        print(f"{found[-1][0]:,} steps: {found[-1][1] / MB:.0f} MB in all", flush=True)
    env.close()
    return found


def measure(config: Config) -> list[tuple[int, float]]:
    """Return pairs of steps and the megabytes that feedback takes; both agents have a process of their own."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes:
        bare = processes.submit(bytes_of_bare, config).result()
        print(f"without feedback: {bare / MB:.0f} MB", flush=True)
        found = processes.submit(bytes_with_feedback, config).result()
    return [(steps, (held - bare) / MB) for steps, held in found]


def main(config: Config) -> None:
    """Measure and write the records."""
    started = time.perf_counter()
    found = measure(config)
    seconds = time.perf_counter() - started
    n_labels = config.queries * (config.steps // config.session_every)
    records = [
        Record.now(
            task=find_task(config.task).name,
            method=f"after {steps:,} steps",
            seed=config.seed,
            scale=(
                f"labels of {config.labeler}, {n_labels:,} in {config.steps:,} steps; beyond the same agent on the "
                "simulator's reward and its replay buffer"
            ),
            metrics={"MB": megabytes},
            seconds=seconds,
        )
        for steps, megabytes in found
    ]
    print(write_records("memory", records, config.results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
