"""CartPole and MountainCar learned from a reward of VLM-RM's shape, with a scripted eye in the network's place.

`python -m benchmarks.worlds` writes `results/worlds.json`. Frames are drawn, made to fit, embedded, projected and paid
by the code that pays for CLIP's embeddings, and the agents have the paper's settings, for fewer than its 3 million
steps; what is left out is CLIP. A stopped run goes on.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import vlm_reward
from benchmarks import scored_runs
from benchmarks.schema import RESULTS, Record, write_records
from benchmarks.scripted_towers import ScriptedTowers
from vlp_gym.envs.vlmrm import make_bare
from vlp_gym.scorers.clip import VLMRMScorer
from vlp_gym.tasks.vlmrm import World, find_world
from vlp_gym.wrappers.score import ScoreReward
from vlp_gym.wrappers.seeded import SeededEpisodes


@dataclass(frozen=True)
class Config:
    """Which runs to do, and how long; what is written is made of these."""

    steps: dict[str, int] = field(
        default_factory=lambda: {"CartPole": 200_000, "MountainCar": 50_000}
    )
    """Environment steps of every world; the paper has 3 million."""
    seeds: tuple[int, ...] = (0,)
    evaluate_every: int = 50_000
    evaluation_episodes: int = 20
    threads: int = 1
    """Threads of torch."""
    runs: Path = Path("runs/worlds")
    """Where the runs are kept."""
    results: Path = RESULTS
    quiet: bool = False
    """No progress bars."""


def make_env(world: World, steps: int) -> gym.Env[Any, Any]:
    """Return a world in which the scripted eye pays; episodes of so many steps."""
    scorer = VLMRMScorer(ScriptedTowers(world), baseline=world.baseline, device="cpu")
    limited = TimeLimit(make_bare(world), steps)
    return ScoreReward(SeededEpisodes(limited), world.prompt, scorer, preset="exact")


def make_envs(config: vlm_reward.Config) -> DummyVecEnv:
    """Return what an agent learns in."""
    steps = vlm_reward.protocol_of(config).max_episode_steps
    maker = partial(make_env, find_world(config.env), steps)
    return DummyVecEnv([partial(vlm_reward.watched, maker)])


def compare(config: Config) -> list[Record]:
    """Run what is missing and write the records."""
    records: list[Record] = []
    for (world, steps), seed in product(config.steps.items(), config.seeds):
        folder = config.runs / f"{world}-seed{seed}"
        one = vlm_reward.Config(
            env=world,
            steps=steps,
            evaluate_every=config.evaluate_every,
            evaluation_episodes=config.evaluation_episodes,
            seed=seed,
            device="cpu",
            threads=config.threads,
            out=folder,
            quiet=config.quiet,
        )
        records.append(record_of(scored_runs.finished(one, folder, make_envs)))
        write_records("worlds", records, config.results)
    return records


def record_of(result: dict[str, Any]) -> Record:
    """Return a run's result in the form of every benchmark.

    A pole that falls later has stood at first, so success at any step says nothing here.
    """
    before, after = result["before"], result["after"]
    metrics = {
        "success at the last step, before": before["final_success"],
        "success at the last step, after": after["final_success"],
        "return before": before["env_return"],
        "return after": after["env_return"],
        "minutes": after["seconds"] / 60,
    }
    return replace(scored_runs.record_of(result), metrics=metrics)


if __name__ == "__main__":
    compare(tyro.cli(Config, description=__doc__))
