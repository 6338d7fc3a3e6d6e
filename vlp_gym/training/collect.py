"""Collects trajectories of scripted and exploring behaviour, one file a task, resumable."""

import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np
from tqdm import tqdm

from vlp_gym.atomic import atomic_write_text
from vlp_gym.data.card import CARD, data_card
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, SettingError, UnknownNameError
from vlp_gym.scenes.metaworld import scripted_policy, seed_sawyer
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import TASKS, UNDOING, find_task
from vlp_gym.training.behaviours import (
    BEHAVIOURS,
    LATE_NEAR_OBJECT,
    Behaviour,
    Now,
    Scripted,
    scripted_actions,
)
from vlp_gym.training.command_line import command_line
from vlp_gym.training.undoing import UndoingSawyer, make_env, undoing_script

logger = logging.getLogger(__name__)


CONFIG = "config.json"

Kind = Literal["graded", "mtvlp"]

EPISODES: dict[Kind, dict[str, int]] = {
    "graded": {
        "expert": 6,
        "medium": 6,
        "random": 6,
        "noisy": 6,
        "correlated": 12,
        "mixture": 14,
        "stop": 10,
        "wander": 12,
    },
    "mtvlp": {"expert": 32, "medium": 32, "random": 32},
}
"""Episodes a task of each behaviour: `graded`, of which the bundled model was trained, and the paper's three levels."""


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. The defaults are the first half of the bundled model's data set; seed 1 is the other."""

    kind: Kind = "graded"
    """`graded`: the paper's levels and what lies between and beside them; `mtvlp`: the paper's data set (32
    trajectories of every level)."""
    out: Path | None = None
    """Folder of the data set: `config.json`, one `<Task>.npz` a task, the card `README.md`; None: data/KIND-SEED."""
    tasks: tuple[str, ...] = ()
    """Names of tasks; empty means all 50, and with `graded` those that undo some of them."""
    episodes: dict[str, int] | None = None
    """Episodes a task of each behaviour; None: those of the kind."""
    n_steps: int = 150
    """Steps of an episode; scripted experts succeed within 150 in every task."""
    seed: int = 0
    workers: int = 2
    """Processes; each collects whole tasks."""


def collect(config: CollectConfig) -> Path:
    """Collect what is missing of a data set and return its folder.

    Tasks that are on disk already are kept, so an interrupted run goes on where it stopped; a damaged file is collected
    again.

    Raises:
        CheckpointError: the folder holds a data set of another configuration.
        SettingError: no steps, no episodes of a behaviour, no workers, or a negative seed.
        UnknownNameError: no such task or behaviour.
    """
    names = list(dict.fromkeys(find_task(name).name for name in config.tasks))
    names = names or _tasks_of_kind(config.kind)
    episodes = EPISODES[config.kind] if config.episodes is None else config.episodes
    if unknown := set(episodes) - set(BEHAVIOURS):
        raise UnknownNameError.of("behaviour", min(unknown), list(BEHAVIOURS))
    if min(config.n_steps, config.workers, config.seed + 1) < 1:
        raise SettingError(
            f"n_steps and workers must be 1 or more, and seed 0 or more; got {config.n_steps}, {config.workers} and "
            f"{config.seed}"
        )
    if min(episodes.values(), default=0) < 1:
        raise SettingError(
            f"a data set has one episode or more of every behaviour that it names, got {episodes}; leave out what "
            "you do not want"
        )
    out = config.out or Path("data") / f"{config.kind}-{config.seed}"
    out.mkdir(parents=True, exist_ok=True)
    _check_same_settings(
        out, {"episodes": episodes, "n_steps": config.n_steps, "seed": config.seed}
    )
    missing = [name for name in names if not _is_whole(out / f"{name}.npz")]
    jobs = [(name, episodes, config.n_steps, config.seed, out / f"{name}.npz") for name in missing]
    with tqdm(
        total=len(names), initial=len(names) - len(missing), desc="tasks", disable=None
    ) as bar:
        for _ in _run(jobs, config.workers):
            bar.update()
    if jobs or not (out / CARD).exists():
        atomic_write_text(out / CARD, _card(out))
    return out


def _tasks_of_kind(kind: Kind) -> list[str]:
    return [*TASKS, *(UNDOING if kind == "graded" else ())]


def _is_whole(path: Path) -> bool:
    """Return whether a task is there and all of it can be read; what is damaged is said, and is not."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            with ZipFile(file) as archive:
                whole = archive.testzip() is None and "format.npy" in archive.namelist()
        except Exception:  # every part of an archive fails in its own way
            whole = False
    if not whole:
        logger.warning("%s is damaged; its task is collected again", path)
    return whole


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[str]:
    if workers <= 1:
        yield from (_collect_task(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(_collect_task, *job) for job in jobs]):
            yield done.result()


def _check_same_settings(out: Path, settings: dict[str, Any]) -> None:
    path = out / CONFIG
    if path.exists() and json.loads(path.read_text()) != settings:
        raise CheckpointError(
            f"{out} holds a data set of other settings ({path.read_text().strip()}); choose another folder"
        )
    atomic_write_text(path, json.dumps(settings, indent=1) + "\n")


def settings_of(folder: Path) -> dict[str, Any]:
    """Return what a data set was collected with: `episodes` of each behaviour, `n_steps`, `seed`.

    Raises:
        CheckpointError: there is no data set in the folder.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"no data set at {folder}; run `vlp collect` first") from error
    return settings


def tasks_of(folder: Path) -> list[str]:
    """Return the tasks that a data set has, in alphabetical order of Meta-World's names."""
    return [name for name in (*TASKS, *UNDOING) if (folder / f"{name}.npz").exists()]


def collect_command(folder: Path, tasks: Sequence[str]) -> str:
    """Return the command line that collects these tasks of a data set again, into a folder of the same name."""
    settings = settings_of(folder)
    episodes, seed = settings["episodes"], settings["seed"]
    kind = next((kind for kind in EPISODES if EPISODES[kind] == episodes), None)
    name = folder.resolve().name
    config = CollectConfig(
        kind=kind or CollectConfig.kind,
        out=None if name == f"{kind}-{seed}" else Path("data") / name,
        tasks=() if list(tasks) == _tasks_of_kind(kind or CollectConfig.kind) else tuple(tasks),
        episodes=None if kind else episodes,
        n_steps=settings["n_steps"],
        seed=seed,
    )
    return command_line(["vlp", "collect"], config)


def _card(folder: Path) -> str:
    tasks = tasks_of(folder)
    return data_card(
        folder.resolve().name,
        (Trajectories.load(folder / f"{name}.npz") for name in tasks),
        seed=settings_of(folder)["seed"],
        command=collect_command(folder, tasks),
    )


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
    env, script = _env_and_script(task_name)
    scene = MujocoScene(env.unwrapped.model)
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
                expert_success = _first_success(env, script(), episode_seed, n_steps)
            behaviour = BEHAVIOURS[kind](script(), rng, task_name)
            runs.append(_roll_out(env, scene, behaviour, episode_seed, n_steps, expert_success))
            names.append(kind)
            seeds.append(episode_seed)
    columns = {key: np.stack([run[key] for run in runs]) for key in runs[0] if key != "constants"}
    constants = {
        key: np.stack([run["constants"][key] for run in runs]) for key in runs[0]["constants"]
    }
    return Trajectories(task_name, tuple(names), np.array(seeds), constants=constants, **columns)


def _env_and_script(task_name: str) -> tuple[Any, Callable[[], Scripted]]:
    """Return the bare simulator of a task and what makes its scripted policy for one episode."""
    env = make_env(task_name)
    if isinstance(env, UndoingSawyer):
        return env, lambda: undoing_script(env)
    policy = scripted_policy(task_name)
    return env, lambda: scripted_actions(policy)


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
