"""Minari data sets, one a task: observations, actions and rewards, with the env that they are of."""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from tqdm import tqdm

from vlp_gym.data.replay import Replay
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import DataError, MissingExtraError
from vlp_gym.tasks.metaworld import find_task

NAMESPACE = "vlp"


def write_minari(
    folder: Path, paths: Sequence[Path], name: str, behaviours: tuple[str, ...] = ()
) -> list[str]:
    """Write one Minari data set a task into an existing folder, a root of Minari's, and return their ids.

    An episode has one observation more than actions; the last one is not in our files, so the simulator repeats the
    episode. `infos["success"]` is of the state of every observation. The metadata of an episode has `behaviour` and
    `episode_seed`, which `env.unwrapped.reset(seed=)` starts it from; that of a data set has `instruction`.

    Args:
        folder: where to; empty.
        paths: one `<Task>.npz` a task.
        name: what the data sets are called: `vlp/<Task>/<name>-v0`.
        behaviours: only episodes of these; empty: all.

    Raises:
        CheckpointError: a file is missing or damaged, or its episodes do not repeat here.
        MissingExtraError: Minari is not installed.
        UnknownNameError: no such behaviour.
    """
    storage = _storage()
    name = re.sub(r"[^-\w]", "-", name)
    ids = []
    for path in tqdm(paths, desc="exported tasks", disable=None):
        data = Trajectories.load(path).with_behaviours(*behaviours)
        ids.append(f"{NAMESPACE}/{data.task_name}/{name}-v0")
        _write_task(storage, folder / ids[-1], ids[-1], data)
    _name_namespaces(folder)
    return ids


def _storage() -> Any:
    try:
        import h5py  # noqa: F401, PLC0415
        import minari  # noqa: F401, PLC0415
        from minari.dataset.minari_storage import MinariStorage  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            f'the format minari needs its library ({error}); pip install "vlp-gym[minari]"'
        ) from error
    return MinariStorage


def _write_task(storage: Any, folder: Path, id_: str, data: Trajectories) -> None:
    from minari import __version__  # noqa: PLC0415

    (folder / "data").mkdir(parents=True)
    # The spaces are those of the env, which this makes.
    stored = storage.new(folder / "data", env_spec=env_spec(data.task_name, data.n_steps))
    task = find_task(data.task_name)
    stored.update_metadata({
        "dataset_id": id_,
        "minari_version": __version__,
        "description": f"Meta-World's {task.env_name}, by scripted and exploring behaviour.",
        "algorithm_name": ", ".join(sorted(set(data.behaviour))),
        "instruction": task.instruction,
        "requirements": ["vlp-gym"],
    })  # fmt: skip
    replay = Replay(data)
    stored.update_episodes([_episode(data, replay, row) for row in range(len(data))])
    stored.update_episode_metadata(
        {"behaviour": behaviour, "episode_seed": int(seed)}
        for behaviour, seed in zip(data.behaviour, data.seed, strict=True)
    )


def env_spec(task_name: str, n_steps: int) -> EnvSpec:
    """Return the spec of a task's env that is paid by the simulator, with episodes of `n_steps`."""
    spec = copy.deepcopy(gym.spec(f"vlp/{task_name}"))
    spec.kwargs["reward"] = "env"
    spec.max_episode_steps = n_steps
    return spec


def _episode(data: Trajectories, replay: Replay, row: int) -> Any:
    from minari.data_collector import EpisodeBuffer  # noqa: PLC0415

    last = np.arange(data.n_steps) == data.n_steps - 1
    return EpisodeBuffer(
        id=row,
        observations=np.concatenate([data.obs[row], replay.last_obs(row)[None]]),
        actions=data.action[row],
        rewards=data.env_reward[row],
        terminations=np.zeros_like(last),
        truncations=last,
        infos={"success": np.append(False, data.success[row])},
    )


def _name_namespaces(folder: Path) -> None:
    """Let Minari list `vlp` and `vlp/<Task>` as namespaces."""
    from minari.namespace import NAMESPACE_METADATA_FILENAME as METADATA  # noqa: PLC0415

    for space in (folder / NAMESPACE, *(folder / NAMESPACE).iterdir()):
        (space / METADATA).write_text(json.dumps({"description": "Meta-World, by vlp-gym"}))


def read_minari(dataset: str) -> Trajectories:
    """Return a Minari data set as trajectories, without the states that frames are drawn from.

    Args:
        dataset: its id, under Minari's root on this machine; nothing is downloaded.

    Raises:
        DataError: its episodes differ in length, or its spaces are not flat boxes.
        FileNotFoundError: there is no such data set on this machine.
        MissingExtraError: Minari is not installed.
    """
    _storage()
    import minari  # noqa: PLC0415

    data = minari.load_dataset(dataset)
    episodes = list(data.iterate_episodes())
    lengths = sorted({len(each.actions) for each in episodes})
    if len(lengths) != 1:
        raise DataError(
            f"{dataset}: trajectories of one file have equally many steps, these have {lengths[:5]}...; cut them to "
            "one length first"
        )
    if not all(isinstance(each.observations, np.ndarray) for each in episodes):
        raise DataError(
            f"{dataset}: observations must be flat arrays; flatten its dictionaries first"
        )
    metadata = [dict(each) for each in data.storage.get_episode_metadata(range(len(episodes)))]
    spec = data.spec.env_spec
    n_steps = lengths[0]
    return Trajectories(
        task_name=spec.id.removeprefix(f"{NAMESPACE}/") if spec is not None else dataset,
        behaviour=tuple(str(each.get("behaviour", "unknown")) for each in metadata),
        seed=np.array([int(each.get("episode_seed", row)) for row, each in enumerate(metadata)]),
        obs=np.stack([each.observations[:-1] for each in episodes]).astype(np.float32),
        action=np.stack([each.actions for each in episodes]).astype(np.float32),
        env_reward=np.stack([each.rewards for each in episodes]).astype(np.float32),
        success=np.stack([_successes(each, n_steps) for each in episodes]),
        snapshots=np.zeros((len(episodes), n_steps, 0)),
        constants={},
    )


def _successes(episode: Any, n_steps: int) -> NDArray[np.bool_]:
    success = (episode.infos or {}).get("success")
    return np.zeros(n_steps, bool) if success is None else np.asarray(success[1:], bool)
