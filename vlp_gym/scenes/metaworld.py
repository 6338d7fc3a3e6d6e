"""Meta-World's simulators, bare and properly seeded, and the scene that draws them."""

import sys
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import DEFAULT_CAMERA, camel_case, find_task

OBJECT_LIMIT = 100.0
"""Bound on what the observation says of objects: metres and radians, far beyond any that a task reaches."""


def make_sawyer(task_name: str, **settings: Any) -> Any:
    """Return the bare Sawyer env of a task: goal in the observation, a new goal and object every reset.

    Built without Meta-World's own task list, which costs 0.7 s and fixes 50 goals. Call `seed_sawyer` before a
    reset: it decides the whole episode.

    Args:
        task_name: any spelling that `find_task` reads.
        settings: `render_mode`, `camera_name`, `width`, `height` of the Sawyer env.
    """
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: PLC0415

    env = ALL_V3_ENVIRONMENTS[find_task(task_name).env_name](**settings)
    env._partially_observable = False
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True  # without it goals come from NumPy's global generator
    env._set_task_called = True
    env.max_path_length = (
        sys.maxsize
    )  # a TimeLimit truncates; Meta-World itself would raise at 500 steps
    # `step` clips to this space. Meta-World's own was made while the goal was hidden: it would clip it to zero.
    env.sawyer_observation_space = env.observation_space = observation_space()
    return env


def observation_space() -> Box:
    """Return the space that every observation lies in: this and the last state, and the goal, [39].

    A state is hand position (3), gripper opening (1), and position and orientation of up to two objects (14).
    Its bounds are finite, so that nothing is clipped that matters and Gymnasium's checks have no complaint.
    """
    low = np.concatenate([[-0.525, 0.348, -0.0525, -1.0], np.full(14, -OBJECT_LIMIT)])
    high = np.concatenate([[0.525, 1.025, 0.7, 1.0], np.full(14, OBJECT_LIMIT)])
    goal = np.full(3, OBJECT_LIMIT)
    return Box(
        np.concatenate([low, low, -goal]), np.concatenate([high, high, goal]), dtype=np.float64
    )


def is_metaworld(env: Any) -> bool:
    """Return whether an env is one of Meta-World's, bare or inside `vlp_gym.envs.metaworld.MetaworldEnv`."""
    bare = getattr(env.unwrapped, "sawyer", env.unwrapped)
    return type(bare).__module__.split(".")[0] == "metaworld"


def seed_sawyer(env: Any, seed: int) -> None:
    """Let the next resets of a bare Sawyer env follow from `seed` (its own `reset(seed=)` is ignored)."""
    env.unwrapped.seed(seed)


def scripted_policy(task_name: str) -> Any:
    """Return Meta-World's scripted policy of a scene; `get_action(obs)` gives an action, not yet clipped."""
    import metaworld.policies as policies  # noqa: PLC0415

    name = camel_case(find_task(task_name).env_name)
    known = {policy.lower(): policy for policy in dir(policies)}
    # Two policies are spelled unlike their task.
    alias = {"PegInsertSide": "PegInsertionSide"}.get(name, name)
    return getattr(policies, known[f"sawyer{alias}v3policy".lower()])()


def metaworld_scene(
    env: Any, camera: str = DEFAULT_CAMERA, size_px: int = 224, preset: str = "fast"
) -> MujocoScene:
    """Return the scene of a Meta-World env, square frames of `size_px`."""
    return MujocoScene.of(env, camera, height=size_px, width=size_px, preset=preset)


WORKSPACE = (np.array([-0.5, 0.4, 0.05]), np.array([0.5, 1.0, 0.5]))
"""Lowest and highest point that the gripper is steered to by exploring behaviour, in metres."""
