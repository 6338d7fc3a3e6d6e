"""Pays an agent by a sentence: the wrapper that runs the feedback loop around an env."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from vlp_gym.errors import FeedbackError, UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.feedback.recorder import Recorder
from vlp_gym.scorers import SCORERS
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Labeler, Scene, Task
from vlp_gym.wrappers.encoding import Encoding, Vector
from vlp_gym.wrappers.parts import NOTHING, build_parts, check_task, info_with

REWARDS = ("learned", "env")
"""What the agent can be paid."""


class PreferenceReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the reward by one that is learned from comparisons under a sentence.

    Every step is recorded; when a feedback session is due after a step, it takes place, and the
    step is paid by the reward of after it. Before the first fit the reward is 0. The simulator's
    reward is in `info["env_reward"]` at every step, its success in `info["is_success"]`.

    The first `reset(seed=)` decides queries, labeler and learner too, unless a session has taken
    place; later resets leave what was learned alone.

    Args:
        env: any env whose observations are a `Box` or `Discrete`, and so are its actions.
        instruction: the sentence that becomes the reward.
        labeler: who compares segments: "oracle", the name of a scorer ("vlp", "clip", ...), or an object of your own
            (its `scene`, if it has one, takes the snapshots). None only where nothing is learned.
        reward: "learned", or "env" for the simulator's own, without recording or labels.
        feedback: fields of `FeedbackConfig` that differ from its defaults.
        camera: name of the camera of the labeler's frames; None: that of the checkpoint.
        checkpoint: folder of a VLP checkpoint, or `hf-hub:OWNER/NAME`; None takes the bundled one. Of another scorer
            its official file.
        device: where preference model and reward learner run, "auto" or as torch names it.
        preset: drawing quality, see `vlp_gym.scenes.renderer.PRESETS`.
        scorer: settings of the labeler's scorer, see `vlp_gym.scorers.load_scorer`; plain JSON.

    Raises:
        UnknownNameError: no such labeler, reward, camera, preset or field of `feedback`.
        InstructionError: the sentence is empty or too long.
        CheckpointError: the checkpoint is missing or damaged.
        RenderingError: the labeler looks and the env cannot be drawn.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        instruction: str,
        labeler: str | Labeler | None = "vlp",
        reward: str = "learned",
        feedback: Mapping[str, Any] | None = None,
        camera: str | None = None,
        checkpoint: str | None = None,
        device: str = "auto",
        preset: str = "fast",
        scorer: Mapping[str, Any] | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,  # a labeler of your own may be large
            instruction=instruction,
            labeler=labeler,
            reward=reward,
            feedback=feedback,
            camera=camera,
            checkpoint=checkpoint,
            device=device,
            preset=preset,
            scorer=scorer,
        )
        gym.Wrapper.__init__(self, env)
        if reward not in REWARDS:
            raise UnknownNameError.of("reward", reward, [*REWARDS, *SCORERS])
        self.task = Task(check_instruction(instruction))
        self.config = FeedbackConfig.of(feedback)
        self._device = device
        self._loop: FeedbackLoop | None = None
        self._scene: Scene | None = None
        self._labeler: Labeler | None = None
        self._obs: Vector | None = None
        self._is_seeded = False
        if reward == "env":
            return
        if labeler is None:
            raise ValueError(
                "reward='learned' needs a labeler: labeler='vlp' or 'oracle'; "
                "reward='env' pays the simulator's reward"
            )
        _check_length(env, self.config.segment_length)
        self.encoding = Encoding(env.observation_space, env.action_space)
        parts = build_parts(env, labeler, camera, checkpoint, device, preset, self.config, scorer)
        check_task(getattr(parts.labeler, "scorer", None), self.task)
        self._labeler, self._scene = parts

    @property
    def loop(self) -> FeedbackLoop | None:
        """The feedback loop, the same object for good; None where nothing is learned."""
        if self._loop is None and self._labeler is not None:
            self._start(np.random.SeedSequence())
        return self._loop

    @property
    def recorder(self) -> Recorder | None:
        """The latest episodes; None where nothing is learned."""
        return self.loop.recorder if self.loop is not None else None

    def _start(self, seed: np.random.SeedSequence) -> None:
        from vlp_gym.reward.ensemble import RewardEnsemble  # noqa: PLC0415  (imports torch)

        assert self._labeler is not None
        queries, learner, labeler = seed.spawn(3)
        ensemble = RewardEnsemble(
            self.encoding.obs_dim,
            self.encoding.action_dim,
            self.config.ensemble,
            learner,
            self._device,
        )
        if hasattr(self._labeler, "seed"):
            self._labeler.seed(labeler)
        if self._loop is None:
            self._loop = FeedbackLoop(self.config, self.task, self._labeler, ensemble, queries)
        else:
            self._loop.restart(ensemble, queries)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the first `seed` also decides all that is learned."""
        if self._labeler is None:
            return self.env.reset(seed=seed, options=options)
        if seed is not None and not self._is_seeded:
            self._is_seeded = True
            if self._loop is None or not self._loop.history:
                # Not the words of the env's own generator, which comes from the same integer.
                self._start(np.random.SeedSequence(seed, spawn_key=(1,)))
        assert self.loop is not None
        obs, info = self.env.reset(seed=seed, options=options)
        self.loop.begin_episode(self._scene.constants(self.env) if self._scene else None)
        self._obs = self.encoding.obs(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply an action, hold a feedback session if one is due, and pay the learned reward.

        Raises:
            FeedbackError: the env returned NaN, or the labeler failed; see `FeedbackLoop.session`.
        """
        if self._labeler is not None and self._obs is None:
            raise FeedbackError("the episode has not begun; call reset() before step()")
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        reward = float(env_reward)
        info = info_with(info, reward)
        if self._labeler is not None:
            is_success = bool(info.get("is_success", False))
            reward = self._learned(action, obs, reward, is_success, terminated or truncated)
        return obs, reward, terminated, truncated, info

    def _learned(
        self, action: Any, obs: Any, env_reward: float, is_success: bool, is_over: bool
    ) -> float:
        loop, before, taken = self.loop, self._obs, self.encoding.action(action)
        assert loop is not None and before is not None
        self._obs = self.encoding.obs(obs)
        snapshot = self._scene.snapshot(self.env) if self._scene else NOTHING
        loop.observe(before, taken, env_reward, snapshot, is_success)
        if is_over:
            loop.end_episode()
        if loop.session_due():
            loop.session()
        return loop.reward(before, taken)

    def state_dict(self) -> dict[str, Any]:
        """Return everything of feedback that the rest of a run depends on; not the env's state."""
        loop = self.loop
        return {
            "loop": None if loop is None else loop.state_dict(),
            "obs": None if self._obs is None else self._obs.copy(),
            "is_seeded": self._is_seeded,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, once the env below stands where it stood then."""
        if self.loop is not None:
            self.loop.load_state_dict(state["loop"])
        self._obs = None if state["obs"] is None else np.array(state["obs"], np.float32)
        self._is_seeded = bool(state["is_seeded"])

    def close(self) -> None:
        """Free the scene's renderer and the env."""
        if self._scene is not None:
            self._scene.close()
        super().close()


def _check_length(env: gym.Env[Any, Any], segment_length: int) -> None:
    # A time limit outside of this wrapper shows at the first session only.
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is not None and 0 < limit < segment_length:
        raise ValueError(
            f"segment length is {segment_length} but an episode ends after {limit} steps; lower "
            "FeedbackConfig.segment_length or raise max_episode_steps"
        )
