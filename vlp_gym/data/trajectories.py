"""Trajectories of one task on disk: one file a task, states and not frames.

All episodes of a file have the same number of steps, so every quantity is one array.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from vlp_gym.atomic import atomic_path
from vlp_gym.errors import CheckpointError, UnknownNameError
from vlp_gym.types import Episode

FORMAT = 1
_CONSTANT = "constant."


@dataclass(frozen=True)
class Trajectories:
    """Episodes of one task.

    Attributes:
        task_name: name of the task as in `vlp/<name>`.
        behaviour: name of the behaviour of every episode.
        seed: the integer that decides the whole episode, int64 [episodes].
        obs: observation before each action, float32 [episodes, steps, obs].
        action: action in [-1, 1], float32 [episodes, steps, action].
        env_reward: the simulator's reward, float32 [episodes, steps].
        success: simulator's success after each action, bool [episodes, steps].
        snapshots: state after each action, float64 [episodes, steps, state].
        constants: what the simulator fixed at reset, each [episodes, ...].
    """

    task_name: str
    behaviour: tuple[str, ...]
    seed: Int[np.ndarray, " episodes"]
    obs: Float[np.ndarray, "episodes steps obs"]
    action: Float[np.ndarray, "episodes steps action"]
    env_reward: Float[np.ndarray, "episodes steps"]
    success: Bool[np.ndarray, "episodes steps"]
    snapshots: NDArray[Any]
    constants: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.behaviour)

    @property
    def n_steps(self) -> int:
        """Number of steps of every episode."""
        return int(self.action.shape[1])

    def episode(self, i: int) -> Episode:
        """Return episode `i` in the form that scenes and labelers read."""
        return Episode(
            number=i,
            obs=self.obs[i],
            action=self.action[i],
            env_reward=self.env_reward[i],
            snapshots=self.snapshots[i],
            constants={name: values[i] for name, values in self.constants.items()},
            success=self.success[i],
        )

    def of_behaviour(self, *names: str) -> Int[np.ndarray, " rows"]:
        """Return the rows whose behaviour is one of `names`, in order."""
        return np.flatnonzero(np.isin(np.array(self.behaviour), names))

    def with_behaviours(self, *names: str) -> "Trajectories":
        """Return the episodes whose behaviour is one of `names`; all of them without a name.

        Raises:
            UnknownNameError: no episode behaves so.
        """
        for name in names:
            if name not in self.behaviour:
                raise UnknownNameError.of("behaviour", name, sorted(set(self.behaviour)))
        return self.take(self.of_behaviour(*names)) if names else self

    def take(self, rows: Int[np.ndarray, " rows"]) -> "Trajectories":
        """Return the episodes of these rows, in this order."""
        columns = ("seed", "obs", "action", "env_reward", "success", "snapshots")
        return replace(
            self,
            behaviour=tuple(self.behaviour[row] for row in rows),
            constants={name: values[rows] for name, values in self.constants.items()},
            **{name: getattr(self, name)[rows] for name in columns},
        )

    def with_reward(self, reward: Float[np.ndarray, "episodes steps"]) -> "Trajectories":
        """Return the same trajectories, every step paid otherwise; float32 [episodes, steps]."""
        return replace(self, env_reward=reward.astype(np.float32))

    def save(self, path: Path) -> None:
        """Write the episodes to one compressed file; a kill leaves the old file or the new one."""
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT), "task_name": np.array(self.task_name), "behaviour": np.array(self.behaviour),
            "seed": self.seed, "obs": self.obs, "action": self.action, "env_reward": self.env_reward,
            "success": self.success, "snapshots": self.snapshots,
            **{_CONSTANT + name: values for name, values in self.constants.items()},
        }  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Trajectories":
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or of a newer format.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
            if int(arrays.pop("format")) > FORMAT:
                raise CheckpointError(f"{path} was written by a newer vlp-gym; upgrade to read it")
            constants = {
                n.removeprefix(_CONSTANT): arrays.pop(n)
                for n in list(arrays)
                if n.startswith(_CONSTANT)
            }
            return cls(
                task_name=str(arrays.pop("task_name")),
                behaviour=tuple(arrays.pop("behaviour").tolist()),
                constants=constants,
                **arrays,
            )
        except CheckpointError:
            raise
        except FileNotFoundError as error:
            raise CheckpointError(f"no trajectories at {path}; run `vlp collect` first") from error
        except Exception as error:  # a zip, a key or a dtype that is not ours
            raise CheckpointError(
                f"{path} is not a readable file of trajectories ({error}); collect it again"
            ) from error

    def fingerprint(self) -> str:
        """Return a hash of what was done, equal for equal data: actions, rewards and seeds."""
        digest = hashlib.blake2b(self.task_name.encode(), digest_size=16)
        for array in (self.seed, self.action, self.env_reward):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
