"""A sentence as the reward of a robot-manipulation environment.

Importing this package registers the environments `vlp/<Task>` and `vlp/<World>`. It imports neither torch nor a
simulator; what does is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

from vlp_gym.envs.spec import SpecOfBoth
from vlp_gym.tasks.metaworld import TASKS
from vlp_gym.tasks.vlmrm import WORLDS

if TYPE_CHECKING:
    from vlp_gym.envs.factory import wrap
    from vlp_gym.envs.vector import wrap_vector
    from vlp_gym.types import Labeler, Labels, Pair, Scene, Scorer, Segment, Task

__version__ = "0.1.0"

MAX_EPISODE_STEPS = 500
"""Time limit of the Meta-World tasks unless `gym.make(..., max_episode_steps=)` says otherwise."""

_LAZY = {
    "Labeler": "vlp_gym.types",
    "Labels": "vlp_gym.types",
    "Pair": "vlp_gym.types",
    "Scene": "vlp_gym.types",
    "Scorer": "vlp_gym.types",
    "Segment": "vlp_gym.types",
    "Task": "vlp_gym.types",
    "wrap": "vlp_gym.envs.factory",
    "wrap_vector": "vlp_gym.envs.vector",
}

__all__ = [
    "TASKS",
    "WORLDS",
    "Labeler",
    "Labels",
    "Pair",
    "Scene",
    "Scorer",
    "Segment",
    "Task",
    "wrap",
    "wrap_vector",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'vlp_gym' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})


_EPISODE_END = WrapperSpec("EpisodeEnd", "vlp_gym.wrappers.score:EpisodeEnd", {})
"""Stands around the time limit of every id."""

for _task in TASKS:
    gym.register(
        id=f"vlp/{_task}",
        entry_point="vlp_gym.envs.factory:make_metaworld",
        vector_entry_point="vlp_gym.envs.vector:make_metaworld_vector",
        max_episode_steps=MAX_EPISODE_STEPS,
        additional_wrappers=(_EPISODE_END,),
        kwargs={"task": _task},
    )
    gym.registry[f"vlp/{_task}"] = SpecOfBoth.of(gym.registry[f"vlp/{_task}"])

for _world in WORLDS.values():
    gym.register(
        id=f"vlp/{_world.name}",
        entry_point="vlp_gym.envs.factory:make_world",
        max_episode_steps=_world.max_episode_steps,
        additional_wrappers=(_EPISODE_END,),
        kwargs={"world": _world.name},
    )
