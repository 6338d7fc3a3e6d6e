"""Pays an agent by a sentence: the wrapper that runs the feedback loop around an env."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from vlp_gym.errors import UnknownNameError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.feedback.recorder import Recorder
from vlp_gym.scorers import SCORERS
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Labeler, Scene, Task
from vlp_gym.wrappers.encoding import Encoding
from vlp_gym.wrappers.parts import build_parts, check_task, info_with
from vlp_gym.wrappers.shared import SharedFeedback
from vlp_gym.wrappers.states import NOTHING, Moment

REWARDS = ("learned", "env")
"""What the agent can be paid."""


class PreferenceReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Replaces the reward by one that is learned from comparisons under a sentence.

    Every step is recorded; when a feedback session is due after a step, it takes place, and the
    step is paid by the reward of after it. Before the first fit the reward is 0, or with
    `unsupervised` how new the state is. The simulator's reward is in `info["env_reward"]` at every
    step, its success in `info["is_success"]`.

    The first `reset(seed=)` decides queries, labeler and learner too, unless a session has taken
    place; later resets leave what was learned alone.

    Args:
        env: any env whose observations are a `Box`, `Discrete` or `Dict` of these, and whose actions are one of the
            first two.
        instruction: the sentence that becomes the reward.
        labeler: who compares segments: "oracle", the name of a scorer ("vlp", "clip", ...), another name in `LABELERS`,
            or an object of your own (its `scene`, if it has one, takes the snapshots). None only where nothing is
            learned.
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
        self.shared: SharedFeedback | None = None
        """What feeds the loop; None where nothing is learned."""
        self._scene: Scene | None = None
        if reward == "env":
            return
        if labeler is None:
            raise ValueError(
                "reward='learned' needs a labeler: labeler='vlp' or 'oracle'; "
                "reward='env' pays the simulator's reward"
            )
        check_length(env, self.config.segment_length)
        self.encoding = Encoding(env.observation_space, env.action_space)
        parts = build_parts(
            [env], labeler, camera, checkpoint, device, preset, self.config, scorer=scorer
        )
        check_task(getattr(parts.labeler, "scorer", None), self.task)
        self._scene = parts.scenes[0]
        self.shared = SharedFeedback(self.encoding, [self.task], parts.labeler, self.config, device)

    @property
    def loop(self) -> FeedbackLoop | None:
        """The feedback loop, the same object for good; None where nothing is learned."""
        return None if self.shared is None else self.shared.loop

    @property
    def recorder(self) -> Recorder | None:
        """The latest episodes; None where nothing is learned."""
        return self.loop.recorder if self.loop is not None else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the first `seed` also decides all that is learned."""
        if self.shared is None:
            return self.env.reset(seed=seed, options=options)
        self.shared.seed(seed)
        obs, info = self.env.reset(seed=seed, options=options)
        self.shared.begin(obs, self._scene.constants(self.env) if self._scene else None)
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply an action, hold a feedback session if one is due, and pay the learned reward.

        Raises:
            FeedbackError: the env returned NaN, or the labeler failed; see `FeedbackLoop.session`.
        """
        if self.shared is not None:
            self.shared.require_begun()
        obs, env_reward, terminated, truncated, info = self.env.step(action)
        reward = float(env_reward)
        info = info_with(info, reward)
        if self.shared is not None:
            snapshot = self._scene.snapshot(self.env) if self._scene else NOTHING
            is_success = bool(info.get("is_success", False))
            moment = Moment(None, snapshot, reward, is_success, bool(terminated or truncated))
            self.shared.observe(action, obs, moment)
            reward = float(self.shared.pay()[0])
        return obs, reward, terminated, truncated, info

    def state_dict(self) -> dict[str, Any]:
        """Return everything of feedback that the rest of a run depends on; not the env's state."""
        return {} if self.shared is None else self.shared.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, once the env below stands where it stood then."""
        if self.shared is not None:
            self.shared.load_state_dict(state)

    def close(self) -> None:
        """Free the scene's renderer and the env."""
        if self._scene is not None:
            self._scene.close()
        super().close()


def check_length(env: gym.Env[Any, Any], segment_length: int) -> None:
    """Refuse segments that no episode of an env can hold.

    Raises:
        ValueError: the time limit of the env is shorter than a segment.
    """
    # A time limit outside of this wrapper shows at the first session only.
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is not None and 0 < limit < segment_length:
        raise ValueError(
            f"segment length is {segment_length} but an episode ends after {limit} steps; lower "
            "FeedbackConfig.segment_length or raise max_episode_steps"
        )
