"""One feedback loop for one env or many: it is started, fed and asked for rewards here."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.feedback.outcomes import Outcomes
from vlp_gym.types import Labeler, Task
from vlp_gym.wrappers.encoding import Encoding, Vector, Vectors
from vlp_gym.wrappers.states import Moment

logger = logging.getLogger(__name__)


class SharedFeedback:
    """Feeds a feedback loop with the steps of envs and says what they are worth.

    Call `begin` where an env was reset, `observe` for every env that made a step, and `pay` once all have.

    Envs of different tasks share the loop, its labels' budget and the reward ensemble, which then also sees which
    task it is about (one number a task, 1 for its own).

    Args:
        encoding: observations and actions of an env as vectors.
        tasks: that of each env; envs with the same `Task` object are of one task.
        labeler: who compares segments.
        config: schedule of the loop.
        device: where the reward learner runs.

    Attributes:
        outcomes: what episodes came to.
        alarms: env steps at which the learned return was seen to rise without success.
    """

    def __init__(
        self,
        encoding: Encoding,
        tasks: Sequence[Task],
        labeler: Labeler,
        config: FeedbackConfig,
        device: str,
    ) -> None:
        self.encoding, self.config = encoding, config
        self.outcomes = Outcomes(len(tasks))
        self.alarms: list[int] = []
        self._tasks, self._labeler, self._device = tuple(tasks), labeler, device
        self._marks = _marks_of(self._tasks)
        self._before: list[Vector | None] = [None] * len(tasks)
        self._unpaid: list[tuple[int, Vector, Vector, Moment]] = []
        self._loop: FeedbackLoop | None = None
        self._is_seeded = False

    @property
    def n_envs(self) -> int:
        """Envs that share the loop."""
        return len(self._tasks)

    @property
    def loop(self) -> FeedbackLoop:
        """The feedback loop, the same object for good."""
        if self._loop is None:
            self._start(np.random.SeedSequence())
            assert self._loop is not None
        return self._loop

    def seed(self, seed: int | None) -> None:
        """Let the first seed decide queries, labeler and learner, unless a session has taken place."""
        if seed is None or self._is_seeded:
            return
        self._is_seeded = True
        if self._loop is None or not self._loop.history:
            # Not the words of the envs' own generators, which come from the same integer.
            self._start(np.random.SeedSequence(seed, spawn_key=(1,)))

    def _start(self, seed: np.random.SeedSequence) -> None:
        from vlp_gym.reward.ensemble import RewardEnsemble  # noqa: PLC0415  (imports torch)

        queries, learner, labeler = seed.spawn(3)
        obs_dim, action_dim = self.encoding.obs_dim, self.encoding.action_dim
        ensemble = RewardEnsemble(
            obs_dim + self._marks.shape[1], action_dim, self.config.ensemble, learner, self._device
        )
        if hasattr(self._labeler, "seed"):
            self._labeler.seed(labeler)
        if self._loop is None:
            self._loop = FeedbackLoop(self.config, self._tasks, self._labeler, ensemble, queries)
        else:
            self._loop.restart(ensemble, queries)

    def begin(self, obs: Any, constants: dict[str, NDArray[Any]] | None, env: int = 0) -> None:
        """Start an episode of an env; `constants` as in `Scene.constants`."""
        self.loop.begin_episode(constants, env)
        if all(step[0] != env for step in self._unpaid):
            self._end(env)  # a time limit outside of the wrapper shows only here
        self._before[env] = self._vector(obs, env)

    def require_begun(self, env: int = 0) -> Vector:
        """Return the observation that the next action of an env answers to.

        Raises:
            FeedbackError: its episode has not begun.
        """
        before = self._before[env]
        if before is None:
            raise FeedbackError("the episode has not begun; call reset() before step()")
        return before

    def observe(self, action: Any, obs: Any, moment: Moment, env: int = 0) -> None:
        """Record a step of an env.

        Args:
            action: what the env was given.
            obs: what it returned, before any autoreset.
            moment: what else there is to know of the step.
            env: number of the env.

        Raises:
            FeedbackError: the episode has not begun, or the env returned NaN.
        """
        before, taken = self.require_begun(env), self.encoding.action(action)
        self._before[env] = self._vector(obs, env)
        self.loop.observe(before, taken, moment.env_reward, moment.snapshot, moment.success, env)
        if moment.is_over:
            self.loop.end_episode(env)
        self._unpaid.append((env, before, taken, moment))

    def pay(self) -> Float[np.ndarray, " envs"]:
        """Hold a session if one is due, and return what the observed steps are worth, 0 for envs without one.

        Raises:
            FeedbackError: the labeler failed; see `FeedbackLoop.session`.
        """
        steps, self._unpaid = self._unpaid, []
        if self.loop.session_due:
            self.loop.session()
        paid = np.zeros(self.n_envs, np.float32)
        if not steps:
            return paid
        obs, action = np.array([step[1] for step in steps]), np.array([step[2] for step in steps])
        rewards = self.loop.rewards(obs, action)
        for (env, _, _, moment), reward in zip(steps, rewards.tolist(), strict=True):
            paid[env] = reward
            self.outcomes.step(reward, moment.env_reward, moment.success, env)
            if moment.is_over:
                self._end(env)
        return paid

    def _end(self, env: int) -> None:
        warning = self.outcomes.hacking() if self.outcomes.end(env) else None
        if warning is not None:
            self.alarms.append(self.loop.steps)
            logger.warning("step %d: %s", self.loop.steps, warning)

    def _vector(self, obs: Any, env: int) -> Vector:
        vector = self.encoding.obs(obs)
        return np.concatenate([vector, self._marks[env]]) if self._marks.shape[1] else vector

    def stored(
        self, obs: Any, actions: NDArray[Any], env: int = 0
    ) -> tuple[Vectors, Float[np.ndarray, "rows action"]]:
        """Return observations and actions [rows, ...] of one env, as a replay buffer of Stable-Baselines3 has them."""
        rows = self.encoding.obs_rows(obs)
        if self._marks.shape[1]:
            rows = np.concatenate([rows, np.tile(self._marks[env], (len(rows), 1))], axis=1)
        return rows, self.encoding.stored_action_rows(actions)

    def state_dict(self) -> dict[str, Any]:
        """Return everything of feedback that the rest of a run depends on; not the envs' states."""
        return {
            "loop": self.loop.state_dict(),
            "before": [None if each is None else each.copy() for each in self._before],
            "outcomes": self.outcomes.state_dict(),
            "alarms": list(self.alarms),
            "is_seeded": self._is_seeded,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, once the envs stand where they stood then."""
        self.loop.load_state_dict(state["loop"])
        self._before = [
            None if each is None else np.array(each, np.float32) for each in state["before"]
        ]
        self.outcomes.load_state_dict(state["outcomes"])
        self.alarms, self._unpaid = list(state["alarms"]), []
        self._is_seeded = bool(state["is_seeded"])


def _marks_of(tasks: Sequence[Task]) -> NDArray[np.float32]:
    """Return what tells the tasks of envs apart, [envs, tasks]; nothing where there is only one."""
    kinds = list({id(task): task for task in tasks}.values())
    if len(kinds) == 1:
        return np.zeros((len(tasks), 0), np.float32)
    return np.array([[task is kind for kind in kinds] for task in tasks], np.float32)
