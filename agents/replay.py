"""Everything that a learning agent did, as trajectories: SAC on the simulator's reward, or on a learned one.

`python -m agents.replay DoorOpen PlateSlide` writes one file a task, in the format of `vlp collect`. The first
10,000 steps of a file are the replay of an agent of that age, and so on: what an online run shows a labeler. With
`--keep 60` it writes so many episodes of all ages, for `vlp train --replays`. With `--reward learned` the agent finds
out what a preference model pays too much for, which the next one can be trained against.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

import vlp_gym  # noqa: F401  registers vlp/*
from agents import run
from agents.sac import SacConfig, make_sac
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.denormals import flush_denormals
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.sb3 import RelabelReplay
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import find_task

BEHAVIOUR = "sac"
"""Name of the behaviour of such episodes."""
ANY = ("any",)
"""In the place of tasks: what a folder of replays says of its settings holds for all of them."""


@dataclass(frozen=True)
class Config:
    """Whose replay, and how much of it."""

    tasks: tyro.conf.Positional[tuple[str, ...]]
    """Names of tasks."""
    steps: int = 60_000
    """Environment steps of an agent."""
    max_episode_steps: int = 150
    """Steps of an episode; `steps` is a multiple of it."""
    keep: int | None = None
    """Episodes that are written, evenly spread over the agent's life; None: all of them."""
    seed: int = 0
    out: Path | None = None
    """Folder of the files; None: data/replay-SEED. Files that are there are kept."""
    sac: SacConfig = field(default_factory=SacConfig)
    reward: Literal["env", "learned"] = "env"
    """What the agent learns from; what is written is the simulator's reward either way."""
    checkpoint: Path | None = None
    """The preference model that a learned reward has its labels of; None: the bundled one."""
    feedback: FeedbackConfig = FeedbackConfig(1_000, queries_per_session=50, session_every=1_500)
    """Of a learned reward."""
    device: str = "auto"
    threads: int = 1
    """Threads of torch."""
    quiet: bool = False
    """No progress bar."""

    def __post_init__(self) -> None:
        """Refuse a last episode that would be cut off."""
        if not self.tasks:
            raise ValueError("name a task, such as DoorOpen")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep must be 1 or more, got {self.keep}")
        if self.steps % self.max_episode_steps:
            raise ValueError(
                f"steps must be a multiple of max_episode_steps, got {self.steps} and {self.max_episode_steps}"
            )


class Keeps(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps every step of every episode of a MuJoCo env, as `Trajectories` want them."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._scene = MujocoScene.of(env)
        self._rows: list[dict[str, list[Any]]] = []
        self._constants: list[dict[str, NDArray[Any]]] = []
        self._seeds: list[int] = []
        self._obs: Any = None

    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode and remember what was fixed by it."""
        self._obs, info = self.env.reset(**how)
        names = ("obs", "action", "env_reward", "success", "snapshots")
        self._rows.append({name: [] for name in names})
        self._constants.append(self._scene.constants(self.env))
        self._seeds.append(int(self.env.get_wrapper_attr("episode_seed")))
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and remember it."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        step = (
            self._obs,
            np.array(action),
            info["env_reward"],
            info["success"],
            self._scene.snapshot(self.env),
        )
        for column, value in zip(self._rows[-1].values(), step, strict=True):
            column.append(value)
        self._obs = obs
        return obs, reward, terminated, truncated, info

    def trajectories(self, task_name: str, n_steps: int) -> Trajectories:
        """Return the episodes that have `n_steps` steps."""
        whole = [i for i, rows in enumerate(self._rows) if len(rows["obs"]) == n_steps]
        kinds = {"env_reward": np.float32, "obs": np.float32, "action": np.float32, "success": bool}
        columns = {
            name: np.array([self._rows[i][name] for i in whole], kinds.get(name))
            for name in self._rows[0]
        }
        constants = {
            name: np.stack([self._constants[i][name] for i in whole]) for name in self._constants[0]
        }
        seeds = np.array([self._seeds[i] for i in whole])
        behaviour = (BEHAVIOUR,) * len(whole)
        return Trajectories(task_name, behaviour, seeds, constants=constants, **columns)


def replay(task_name: str, config: Config) -> Trajectories:
    """Let an agent learn a task and return all that it did."""
    torch.set_num_threads(config.threads)
    # The time limit belongs inside, so that what is kept ends with the episode.
    limited = gym.make(
        f"vlp/{task_name}", max_episode_steps=config.max_episode_steps, **_paying(config)
    )
    env = Keeps(limited)
    agent = make_sac(config.sac, env, config.steps, config.seed, config.device)
    callbacks: list[BaseCallback] = [] if config.quiet else [ProgressBarCallback()]
    if config.reward == "learned":
        callbacks.append(RelabelReplay())
    agent.learn(config.steps, callbacks)
    kept = env.trajectories(task_name, config.max_episode_steps)
    env.close()
    if config.keep is None or config.keep >= len(kept):
        return kept
    return kept.take(np.linspace(0, len(kept) - 1, config.keep).round().astype(int))


def _paying(config: Config) -> dict[str, Any]:
    if config.reward == "env":
        return {"reward": "env"}
    return {
        "labeler": "vlp",
        "checkpoint": None if config.checkpoint is None else str(config.checkpoint),
        "feedback": dataclasses.asdict(config.feedback),
        "device": config.device,
    }


def main(config: Config) -> Path:
    """Write the replay of every task that has none yet and return the folder.

    Raises:
        ValueError: the folder holds replays of other settings.
    """
    out = config.out or Path("data") / f"replay-{config.seed}"
    out.mkdir(parents=True, exist_ok=True)
    deciding = dataclasses.replace(config, tasks=ANY, out=None, device="cpu", threads=1, quiet=True)
    if (out / run.CONFIG).exists():
        there = "the same" if run.read_config(out, Config) == deciding else "other"
    else:
        there = "unknown" if any(out.glob("*.npz")) else "no"
    if there in ("other", "unknown"):
        raise ValueError(
            f"{out} holds replays of {there} settings; choose another folder for these"
        )
    run.write_config(out, deciding)
    flush_denormals()
    for name in [find_task(name).name for name in config.tasks]:
        path = out / f"{name}.npz"
        if not path.exists():
            replay(name, config).save(path)
            print(path)
    return out


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
