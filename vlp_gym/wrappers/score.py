"""Pays an agent by what a scorer says of its frames: a vision-language model as the reward."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.labelers.score import frame_steps
from vlp_gym.scorers import load_scorer
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Frames, Scene, Scorer, Task
from vlp_gym.wrappers.parts import check_task, info_with, scorer_scene
from vlp_gym.wrappers.pay import PayConfig

logger = logging.getLogger(__name__)

DRAWN_AT_ONCE = 256
"""Frames that are drawn before they are scored; bounds the memory of an episode."""

_shared: WeakValueDictionary[str, Any] = WeakValueDictionary()


class ScoreReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Pays every step, or an episode at its end, what a scorer says of the frames under a sentence.

    `step` returns the right reward at once: it draws and scores the frame. With `defers` set, it leaves that for later,
    when all frames of a rollout or episode are drawn and scored together, which is several times as fast, returns 0
    for the score, and owes the rest: `collect()` says what has to be added to the rewards of the steps since the
    last call. `vlp_gym.sb3.ScoreRollouts` does both for Stable-Baselines3. The last step of an episode is paid in
    full either way, so that nobody is left with a debt of an episode that is over: `info["late_reward"]` is what its
    earlier steps have to get in all.

    The frame of a step is that after its action; after the last one it shows where the episode ended, not where the
    next one begins.

    Args:
        env: an env that can be drawn.
        instruction: the sentence that becomes the reward.
        scorer: a name of `vlp_gym.scorers.SCORERS`, or an object of your own.
        pay: fields of `PayConfig` that differ from its defaults.
        camera: name of the camera; None: the scorer's, or the env's own.
        checkpoint: as of `load_scorer`.
        device: where the scorer runs, "auto" or as torch names it.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
        settings: arguments of the scorer's own, see `load_scorer`; plain JSON.

    Attributes:
        task: what the scorer is asked.
        scorer: the scorer; envs in one process whose arguments are the same share it.
        pay: how its scores are paid.
        defers: whether scores are left for later.
        late_reward: what the steps of the episode before this one have to get, beside what they were paid at once.

    Raises:
        UnknownNameError: no such scorer, camera, preset, or field of `pay` or `settings`.
        ValueError: the scorer reads clips and is asked to pay every step.
        SettingError: the scorer lacks what it compares with, such as pictures of the goal.
        InstructionError: the sentence is empty, or nothing that the scorer reads.
        CheckpointError: the checkpoint is missing or damaged.
        RenderingError: the env cannot be drawn.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        instruction: str,
        scorer: str | Scorer,
        pay: Mapping[str, Any] | PayConfig | None = None,
        camera: str | None = None,
        checkpoint: str | None = None,
        device: str = "auto",
        preset: str = "fast",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,  # a scorer of your own may be large
            instruction=instruction,
            scorer=scorer,
            pay=pay,
            camera=camera,
            checkpoint=checkpoint,
            device=device,
            preset=preset,
            settings=settings,
        )
        gym.Wrapper.__init__(self, env)
        self.task = Task(check_instruction(instruction))
        self.pay = PayConfig.of(pay)
        self.scorer: Any = (
            shared_scorer(scorer, checkpoint, device, settings or {})
            if isinstance(scorer, str)
            else scorer
        )
        check_task(self.scorer, self.task)
        self._reads_clips = getattr(self.scorer, "unit", "frame") == "clip"
        if self._reads_clips and self.pay.form not in (None, "end"):
            raise ValueError(
                f"{self.name} gives a whole clip one score, so it can only pay at the end of an episode: "
                f"pay={{'form': 'end'}}, not {self.pay.form!r}"
            )
        self.form = self.pay.form or ("end" if self._reads_clips else "step")
        self._scene: Scene = scorer_scene(env, self.scorer, camera, preset)
        self.defers = False
        self._constants: dict[str, NDArray[Any]] = {}
        self._pending: list[NDArray[Any]] = []
        self._owed: list[float] = []
        self._first: NDArray[Any] | None = None
        self._value: float | None = None
        self._late = self.late_reward = 0.0

    @property
    def name(self) -> str:
        """Which scorer pays."""
        return str(getattr(self.scorer, "name", type(self.scorer).__name__))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; what the one before still owes is not lost."""
        if self.form != "end":
            self._settle()
        elif self._pending and self._first is not None:
            logger.warning(
                "an episode of %d steps was reset before its end and is not paid; a TimeLimit belongs inside: "
                "vlp_gym.wrap(TimeLimit(env, steps), ...)",
                len(self._pending),
            )
        self.late_reward = self._late
        obs, info = self.env.reset(seed=seed, options=options)
        self._begin()
        return obs, info

    def _begin(self) -> None:
        self._constants = self._scene.constants(self.env)
        self._first = self._scene.snapshot(self.env)
        self._pending, self._value, self._late = [], None, 0.0
        self.task = replace(self.task, first_frame=None)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply an action and pay for the frame after it, or, with `defers`, remember that.

        Raises:
            FeedbackError: the episode has not begun, or the scorer broke its contract.
        """
        if self._first is None:
            raise FeedbackError("the episode has not begun; call reset() before step()")
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        info = info_with(info, float(env_reward))
        self._pending.append(self._scene.snapshot(self.env))
        paid = float(env_reward) if self.pay.add else 0.0
        if self.form != "end" and not self.defers:
            (now,) = self._settle()
            self._late -= now
            paid += now
        if self.defers and self.form == "end":
            self._owed.append(0.0)
        if terminated or truncated:
            extra, info["late_reward"] = self.end_episode()
            paid += extra
        if not self.defers:
            self._owed.clear()  # all is paid
        return obs, paid, terminated, truncated, info

    def end_episode(self) -> tuple[float, float]:
        """Return what the last step gets beside what it was paid, and what the steps before it get in all.

        For whoever ends an episode around this wrapper, as `EpisodeEnd` does; called once, after the last step.
        """
        extra = 0.0
        if self.form == "end":
            extra = self._episode_score()
        elif self._pending:
            extra = self._settle()[-1]
            self._owed[-1] = 0.0
            self._late -= extra
        self._first = None
        return extra, self._late

    def collect(self) -> Float[np.ndarray, " steps"]:
        """Return what the rewards of the steps since the last call have to be raised by, float32 [steps].

        Whatever is pending of the present episode is drawn and scored now.
        """
        if self.form != "end":
            self._settle()
        owed, self._owed = np.array(self._owed, np.float32), []
        return owed

    @property
    def n_owed(self) -> int:
        """How many steps `collect` would answer for."""
        return len(self._owed) + (0 if self.form == "end" else len(self._pending))

    def forget(self, n_steps: int) -> None:
        """Drop the debts of the latest `n_steps` steps, which nobody has kept."""
        if self.form != "end":
            self._settle()
        if n_steps:
            del self._owed[-n_steps:]

    def _settle(self) -> list[float]:
        """Draw and score what is pending; return the pay of those steps, which is owed from now on."""
        if not self._pending:
            return []
        assert self._first is not None
        is_difference = self.form == "potential"
        snapshots = (
            [self._first, *self._pending]
            if is_difference and self._value is None
            else self._pending
        )
        values = self._frame_scores(np.stack(snapshots))
        if is_difference:
            before = values[:1] if self._value is None else np.array([self._value])
            values = values[len(snapshots) - len(self._pending) :]
            values, self._value = (
                self.pay.discount * values - np.concatenate([before, values[:-1]]),
                float(values[-1]),
            )
        pay: list[float] = (self.pay.weight * values).tolist()
        self._pending = []
        self._owed += pay
        self._late += sum(pay)
        return list(pay)

    def _frame_scores(self, snapshots: NDArray[Any]) -> Float[np.ndarray, " frames"]:
        blocks = np.array_split(snapshots, range(DRAWN_AT_ONCE, len(snapshots), DRAWN_AT_ONCE))
        return np.concatenate([self._score(self._scene.draw(self._constants, b)) for b in blocks])

    def _episode_score(self) -> float:
        n_frames = self.scorer.n_frames if self._reads_clips else 1
        steps = frame_steps(len(self._pending), n_frames, getattr(self.scorer, "keeps_last", True))
        frames = self._scene.draw(self._constants, np.stack([self._pending[i] for i in steps]))
        return self.pay.weight * float(self._score(frames)[0])

    def _score(self, frames: Frames) -> Float[np.ndarray, " scores"]:
        """Return one score a frame, or a single one of a clip, float64."""
        if getattr(self.scorer, "reads_first_frame", False) and self.task.first_frame is None:
            assert self._first is not None
            first = self._scene.draw(self._constants, self._first[None])[0]
            self.task = replace(self.task, first_frame=first)
        scores = np.asarray(self.scorer(frames[None], self.task))
        expected = (1, 1 if self._reads_clips else len(frames))
        if scores.shape != expected or not np.isfinite(scores).all():
            raise FeedbackError(
                f"scorer {self.name!r} must return finite scores of shape {list(expected)} for a clip of {len(frames)} "
                f"frames, got {list(scores.shape)}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}"
            )
        row: Float[np.ndarray, " scores"] = scores[0].astype(np.float64)
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of an episode's pay depends on; not the env's state."""
        return {
            "first": None if self._first is None else self._first.copy(),
            "pending": [each.copy() for each in self._pending],
            "owed": list(self._owed),
            "value": self._value,
            "late": self._late,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, once the env below stands where it stood then."""
        self._constants = self._scene.constants(self.env)
        self._first = None if state["first"] is None else np.asarray(state["first"])
        self._pending = [np.asarray(each) for each in state["pending"]]
        self._owed, self._late = list(state["owed"]), float(state["late"])
        self._value = None if state["value"] is None else float(state["value"])
        self.task = replace(self.task, first_frame=None)

    def close(self) -> None:
        """Free the scene's renderer and the env."""
        self._scene.close()
        super().close()


class EpisodeEnd(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Tells a `ScoreReward` below that a time limit between the two has ended the episode.

    `gym.make` puts the limit of an id around everything that the id makes, so that a scorer could not know its last
    step. Every `vlp/*` id has this wrapper around its limit; with other rewards it does nothing.

    Args:
        env: an env with or without a `ScoreReward` somewhere below.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        layer = env
        while isinstance(layer, gym.Wrapper) and not isinstance(layer, ScoreReward):
            layer = layer.env
        self._scored = layer if isinstance(layer, ScoreReward) else None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; pay the last step of an episode that a time limit ends."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if truncated and self._scored is not None and "late_reward" not in info:
            extra, late = self._scored.end_episode()
            reward, info = float(reward) + extra, {**info, "late_reward": late}
        return obs, reward, terminated, truncated, info


def shared_scorer(
    name: str, checkpoint: str | None, device: str, settings: Mapping[str, Any]
) -> Any:
    """Return a scorer by name, the same object to all who ask alike while one of them keeps it.

    Raises:
        UnknownNameError: no such scorer or setting.
        CheckpointError: the checkpoint is missing or damaged.
    """
    try:
        key = json.dumps(
            [name, None if checkpoint is None else str(checkpoint), device, dict(settings)]
        )
    except TypeError:  # arrays among the settings
        return load_scorer(name, checkpoint, device, **settings)
    if key not in _shared:
        found = load_scorer(name, checkpoint, device, **settings)
        _shared[key] = found
        return found
    return _shared[key]
