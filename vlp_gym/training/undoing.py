"""Tasks turned round: a scene as its expert leaves it, and a script that brings it back to how it was.

Meta-World has a counterpart for some tasks, and where it does the two are the only ones to show what "close" means
beside "open". These are more of them (see `UNDOING`), of real physics and in the same form as the others: an env that
pays for undoing, and a scripted policy.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from jaxtyping import Float, Int

from vlp_gym.scenes.metaworld import make_sawyer, scripted_policy
from vlp_gym.tasks.metaworld import UNDOING, find_task
from vlp_gym.training.behaviours import Action, Scripted, scripted_actions

EXPERT_STEPS = 150
"""Steps in which the expert does what is to be undone."""
SETTLE_STEPS = 40
"""Steps without an action before an episode begins: what the hand had pulled past its end springs back on its own."""
DONE = 0.15
"""Undone is what lies within this share of the way that the expert went."""
NEAR_M = 0.1
"""The hand is at the object within this distance of the point that it pushes from."""
MAX_REWARD = 10.0
"""As Meta-World's."""
PROGRESS_SHARE = 0.8
"""Share of the reward that is paid for what is undone; the rest is paid for coming near."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Push:
    """How a thing is pushed back.

    Attributes:
        at: where the hand pushes, from the object's observed position, metres.
        fingers: closing force, 1 or -1.
        come_from: where the hand comes from, seen from where it pushes, metres.
    """

    at: Point
    fingers: float
    come_from: Point = (0.0, 0.0, 0.15)


PUSHES = {
    "DoorOpen": Push((-0.05, 0.02, 0.04), -1.0),
    "DrawerOpen": Push((0.0, -0.02, 0.02), 1.0),
    "WindowClose": Push((-0.06, -0.027, 0.0), 1.0),
    "DoorLock": Push((-0.05, -0.03, -0.05), -1.0, (-0.05, -0.12, 0.0)),
    "HandlePull": Push((0.0, -0.035, 0.06), -1.0),
    "HandlePullSide": Push((0.0, 0.0, 0.06), 1.0),
    "PlateSlideBack": Push((-0.01, -0.07, 0.04), -1.0),
    "PlateSlideSide": Push((0.0, -0.013, 0.04), 1.0),
    "PlateSlideBackSide": Push((0.1, 0.0, 0.04), -1.0),
}
"""By the task whose work is undone; found by trying, each undoes what the expert did in most of its episodes."""
GRASP: Point = (0.0, 0.0, 0.05)
"""Where a hand takes hold of a thing that is not pushed but carried back, from the thing's observed position."""


class UndoingSawyer(gym.Wrapper[Any, Any, Any, Any]):
    """A scene whose episodes begin where its expert ends, the arm back at rest; paid for undoing it, in [0, 10].

    `info` says `success` (undone) and `near_object`, as Meta-World's does.

    Args:
        task_name: a name in `UNDOING`.
    """

    def __init__(self, task_name: str) -> None:
        task = find_task(task_name)
        super().__init__(make_sawyer(task_name))
        self.task_name = task.name
        assert task.counterpart is not None
        self.push = PUSHES.get(task.counterpart)
        self._touch = GRASP if self.push is None else self.push.at
        self._expert = scripted_policy(task_name)
        self._objects = _joints_of_objects(self.unwrapped.model)  # type: ignore[attr-defined]
        self.origin: Float[np.ndarray, "3"] = np.zeros(3)
        self._way: Float[np.ndarray, "3"] = np.zeros(3)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """Let the expert act on a scene, then return to its first moment with the objects as the expert left them."""
        sawyer: Any = self.unwrapped
        before = sawyer.np_random.bit_generator.state
        obs, _ = self.env.reset(**settings)
        expert = scripted_actions(self._expert)
        for step in range(EXPERT_STEPS):
            obs, *_ = self.env.step(expert(obs.copy()).astype(np.float32))
            if step == 0:
                # The very first observation of some scenes shows an object where it is not yet.
                self.origin = obs[4:7].copy()
        moved = sawyer.data.qpos[self._objects].copy()
        sawyer.np_random.bit_generator.state = before
        _, info = self.env.reset(**settings)
        qpos = sawyer.data.qpos.copy()
        qpos[self._objects] = moved
        sawyer.set_state(qpos, np.zeros_like(sawyer.data.qvel))
        for _ in range(SETTLE_STEPS):
            obs, *_ = self.env.step(np.zeros(4, np.float32))
        self._way = obs[4:7] - self.origin
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the scene; the reward is ours, for progress back along the way and for the hand at the object."""
        obs, _, terminated, truncated, info = self.env.step(action)
        left = float((obs[4:7] - self.origin) @ self._way / max(self._way @ self._way, 1e-9))
        gap = float(np.linalg.norm(obs[:3] - obs[4:7] - self._touch))
        undone = left < DONE
        progress = float(np.clip(1.0 - left, 0.0, 1.0))
        near = 1.0 - np.tanh(5.0 * gap)
        paid = PROGRESS_SHARE * progress + (1 - PROGRESS_SHARE) * near
        info |= {"success": float(undone), "near_object": float(gap < NEAR_M)}
        return obs, MAX_REWARD * (1.0 if undone else paid), terminated, truncated, info


def make_env(task_name: str) -> Any:
    """Return the bare simulator that trajectories of a task are recorded in, one that undoes another or any."""
    return UndoingSawyer(task_name) if task_name in UNDOING else make_sawyer(task_name)


def undoing_script(env: UndoingSawyer) -> Scripted:
    """Return a policy that undoes, to be made anew for every episode.

    What has no entry in `PUSHES` is carried to where it was, by Meta-World's policy of the task that undoes it.
    """
    if env.push is not None:
        return PushBack(env, env.push)
    said_like = find_task(env.task_name).said_like
    assert said_like is not None
    carry = scripted_actions(scripted_policy(said_like))

    def act(obs: Float[np.ndarray, " obs"]) -> Action:
        # The last three numbers are the goal.
        return carry(np.concatenate([obs[:-3], env.origin]))

    return act


class PushBack:
    """A scripted policy: come to the object, touch it, push it back along the way that it came.

    Args:
        env: whose episode it acts in; it reads where the object was at first.
        push: how.
    """

    def __init__(self, env: UndoingSawyer, push: Push) -> None:
        self._env, self._push = env, push
        self._stage = "come"

    def __call__(self, obs: Float[np.ndarray, " obs"]) -> Action:
        """Return an action in [-1, 1]."""
        push = self._push
        hand, thing = obs[:3], obs[4:7]
        touch = thing + push.at
        gap = float(np.linalg.norm(hand - touch))
        if self._stage == "push" and gap > 0.12:
            self._stage = "come"
        if self._stage == "come" and np.linalg.norm(hand - touch - push.come_from) < 0.03:
            self._stage = "touch"
        if self._stage == "touch" and gap < 0.03:
            self._stage = "push"
        target = {"come": self._above, "touch": lambda *_: touch, "push": self._behind}[self._stage]
        velocity = 10.0 * (target(hand, thing, touch) - hand)
        action: Action = np.clip(np.append(velocity, push.fingers), -1.0, 1.0)
        return action

    def _above(self, hand: Any, thing: Any, touch: Any) -> Float[np.ndarray, "3"]:
        push = self._push
        start: Float[np.ndarray, "3"] = touch + push.come_from
        low = hand[2] < thing[2] + 0.1 and np.linalg.norm((hand - start)[:2]) > 0.04
        if low and push.come_from[2] > 0:  # rise first, lest the hand pushes the thing on its way
            return np.array([hand[0], hand[1], thing[2] + push.come_from[2]])
        return start

    def _behind(self, hand: Any, thing: Any, touch: Any) -> Float[np.ndarray, "3"]:
        back = self._env.origin - thing
        length = float(np.linalg.norm(back))
        reach = min(length, 0.1) + 0.05 * (length > 0.01)
        target: Float[np.ndarray, "3"] = touch + back / max(length, 1e-6) * reach
        return target


def _joints_of_objects(model: Any) -> Int[np.ndarray, " coordinates"]:
    """Return the coordinates of qpos that are not the robot's."""
    of_robot = []
    for joint in range(model.njnt):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint) or ""
        if name.startswith("right_j") or name in ("r_close", "l_close"):
            of_robot.append(int(model.jnt_qposadr[joint]))
    return np.setdiff1d(np.arange(model.nq), of_robot)
