"""Collects trajectories of scripted and exploring behaviour, one file a task, resumable."""

import json
import logging
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError
from vlp_gym.scenes.metaworld import make_sawyer, scripted_policy, seed_sawyer
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import TASKS, find_task
from vlp_gym.training.behaviours import (
    BEHAVIOURS,
    LATE_NEAR_OBJECT,
    Behaviour,
    Now,
    scripted_actions,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. The defaults are the data set of the bundled model."""

    out: Path = Path("data/graded-0")
    """Folder of the data set: `config.json` and one `<Task>.npz` a task."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; empty means all 50."""
    episodes: dict[str, int] = field(
        default_factory=lambda: {
            "expert": 6,
            "medium": 6,
            "random": 6,
            "noisy": 6,
            "correlated": 12,
            "mixture": 14,
            "stop": 10,
            "wander": 12,
        }  # fmt: skip
    )
    """Episodes a task of each behaviour."""
    n_steps: int = 150
    """Steps of an episode; scripted experts succeed within 150 in every task."""
    seed: int = 0
    workers: int = 2
    """Processes; each collects whole tasks."""


def collect(config: CollectConfig) -> Path:
    """Collect what is missing of a data set and return its folder.

    Tasks that are on disk already are kept, so an interrupted run goes on where it stopped.

    Raises:
        CheckpointError: the folder holds a data set of another configuration.
    """
    names = [find_task(name).name for name in config.tasks] or list(TASKS)
    config.out.mkdir(parents=True, exist_ok=True)
    _check_same_settings(config)
    missing = [name for name in names if not (config.out / f"{name}.npz").exists()]
    jobs = [
        (name, config.episodes, config.n_steps, config.seed, config.out / f"{name}.npz")
        for name in missing
    ]
    with tqdm(
        total=len(names), initial=len(names) - len(missing), desc="tasks", disable=None
    ) as bar:
        for _ in _run(jobs, config.workers):
            bar.update()
    return config.out


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[str]:
    if workers <= 1:
        yield from (_collect_task(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(_collect_task, *job) for job in jobs]):
            yield done.result()


def _check_same_settings(config: CollectConfig) -> None:
    settings = {k: v for k, v in asdict(config).items() if k in ("episodes", "n_steps", "seed")}
    path = config.out / "config.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise CheckpointError(
            f"{config.out} holds a data set of other settings ({path.read_text().strip()}); choose another folder"
        )
    atomic_write_text(path, json.dumps(settings, indent=1) + "\n")


def _collect_task(
    task_name: str, episodes: dict[str, int], n_steps: int, seed: int, path: Path
) -> str:
    collect_task(task_name, episodes, n_steps, seed).save(path)
    return task_name


def collect_task(task_name: str, episodes: dict[str, int], n_steps: int, seed: int) -> Trajectories:
    """Return trajectories of one task; the same arguments give the same arrays.

    Args:
        task_name: name of the task.
        episodes: how many episodes of each behaviour in `BEHAVIOURS`.
        n_steps: steps of every episode.
        seed: seed of the data set.
    """
    env = make_sawyer(task_name)
    scene = MujocoScene(env.unwrapped.model)
    scripted = scripted_actions(scripted_policy(task_name))
    runs, names, seeds = [], [], []
    for kind, n_episodes in episodes.items():
        for i in range(n_episodes):
            # A number of its own for every episode, whatever else is collected beside it.
            root = np.random.SeedSequence(
                [seed, zlib.crc32(task_name.encode()), zlib.crc32(kind.encode()), i]
            )
            episode_seed = int(root.generate_state(1)[0])
            rng = np.random.default_rng(root.spawn(1)[0])
            expert_success = None
            if kind == "medium" and task_name in LATE_NEAR_OBJECT:
                expert_success = _first_success(env, scripted, episode_seed, n_steps)
            behaviour = BEHAVIOURS[kind](scripted, rng, task_name)
            runs.append(_roll_out(env, scene, behaviour, episode_seed, n_steps, expert_success))
            names.append(kind)
            seeds.append(episode_seed)
    columns = {key: np.stack([run[key] for run in runs]) for key in runs[0] if key != "constants"}
    constants = {
        key: np.stack([run["constants"][key] for run in runs]) for key in runs[0]["constants"]
    }
    return Trajectories(task_name, tuple(names), np.array(seeds), constants=constants, **columns)


def _first_success(env: Any, scripted: Any, episode_seed: int, n_steps: int) -> int | None:
    seed_sawyer(env, episode_seed)
    obs, _ = env.reset()
    for step in range(n_steps):
        obs, _, _, _, info = env.step(scripted(obs.copy()).astype(np.float32))
        if info["success"]:
            return step
    return None


def _roll_out(
    env: Any,
    scene: MujocoScene,
    behaviour: Behaviour,
    episode_seed: int,
    n_steps: int,
    expert_success: int | None,
) -> dict[str, Any]:
    seed_sawyer(env, episode_seed)
    obs, _ = env.reset()
    constants = scene.constants(env)
    rows: dict[str, list[Any]] = {
        k: [] for k in ("obs", "action", "env_reward", "success", "snapshots")
    }
    near_object = 0.0
    for step in range(n_steps):
        # Scripted policies write into the array that they are given.
        wanted = behaviour(Now(obs.copy(), step, near_object, expert_success))
        action = np.clip(wanted, -1.0, 1.0).astype(np.float32)
        rows["obs"].append(obs.astype(np.float32))
        obs, reward, _, _, info = env.step(action)
        near_object = float(info["near_object"])
        rows["action"].append(action)
        rows["env_reward"].append(np.float32(reward))
        rows["success"].append(bool(info["success"]))
        rows["snapshots"].append(scene.snapshot(env))
    return {"constants": constants, **{key: np.stack(values) for key, values in rows.items()}}
