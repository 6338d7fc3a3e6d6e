"""The learned reward of a Gymnasium vector: many envs, one feedback loop in this process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypedDict

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from vlp_gym.errors import FeedbackError
from vlp_gym.feedback.config import FeedbackConfig
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.scenes.mujoco import is_mujoco
from vlp_gym.scorers import SCORERS
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.types import Labeler, Scene, Task
from vlp_gym.wrappers.encoding import Encoding
from vlp_gym.wrappers.parts import build_parts, check_task, picture_size
from vlp_gym.wrappers.preference import check_length
from vlp_gym.wrappers.shared import SharedFeedback
from vlp_gym.wrappers.states import MOMENT, SendsStates

EnvFunction = Callable[[], gym.Env[Any, Any]]
"""Makes one env."""


class Worker:
    """Makes an env that sends its states: what runs in a worker, and travels there.

    Args:
        make: makes the env, time limit included.
        number: which one of its vector it is.
        is_looked_at: as in `SendsStates`.
        picture_px: as in `SendsStates`.
    """

    def __init__(
        self,
        make: EnvFunction,
        number: int,
        is_looked_at: bool = False,
        picture_px: int | tuple[int, int] | None = None,
    ) -> None:
        self._make, self._number = make, number
        self._is_looked_at, self._picture_px = is_looked_at, picture_px

    def __call__(self) -> gym.Env[Any, Any]:
        """Return the env."""
        return SendsStates(self._make(), self._number, self._is_looked_at, self._picture_px)


class Fleet(NamedTuple):
    """Envs that share one feedback loop: how to make them, what feeds the loop, and what draws them."""

    workers: list[Worker]
    shared: SharedFeedback
    scenes: list[Scene | None]


class FeedbackOptions(TypedDict, total=False):
    """What vectors of envs take of `PreferenceReward`'s arguments, with the same meanings and defaults."""

    labeler: str | Labeler
    """Who compares segments: "vlp", "oracle", another name in `LABELERS`, or an object of your own."""
    feedback: Mapping[str, Any] | None
    """Fields of `FeedbackConfig` that differ from its defaults; steps are counted over all envs."""
    camera: str | None
    """Of the labeler's frames; None: that of the checkpoint."""
    checkpoint: str | None
    """Of the preference model, or the official file of another scorer; None: the bundled one."""
    device: str
    """Where scorer and reward learner run, "auto" or as torch names it."""
    preset: str
    """Drawing quality, see `vlp_gym.scenes.renderer.PRESETS`."""
    scorer: Mapping[str, Any] | None
    """Settings of the labeler's scorer."""


def build_fleet(
    makers: Sequence[EnvFunction],
    instructions: Sequence[str],
    kinds: Sequence[str] | None = None,
    *,
    labeler: str | Labeler = "vlp",
    feedback: Mapping[str, Any] | None = None,
    camera: str | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    preset: str = "fast",
    scorer: Mapping[str, Any] | None = None,
) -> Fleet:
    """Return what a vector of envs needs, whatever kind of vector it is.

    Args:
        makers: one for each env, time limit and `SeededEpisodes` included.
        instructions: the sentence of each env.
        kinds: which envs are of one world, by name; None: those with the same sentence. Only segments of envs of one
            world and one sentence are compared.
        labeler: this and what follows as in `FeedbackOptions`.
        feedback: fields of `FeedbackConfig`.
        camera: of the labeler's frames.
        checkpoint: of the scorer.
        device: where scorer and reward learner run.
        preset: drawing quality.
        scorer: settings of the labeler's scorer.

    Raises:
        ValueError: not one sentence for each env, or a time limit shorter than a segment.
        UnknownNameError: as in `PreferenceReward`; so are the other errors.
    """
    if len(makers) != len(instructions) or not makers:
        raise ValueError(
            f"a vector needs an instruction for each env, got {len(instructions)} for {len(makers)} envs"
        )
    config = FeedbackConfig.of(feedback)
    sentences = [check_instruction(each) for each in instructions]
    names = list(zip(kinds or sentences, sentences, strict=True))
    distinct = list(dict.fromkeys(names))
    task_of_env = [distinct.index(name) for name in names]
    # One env of each task stays here: it tells what spaces there are and what a picture needs.
    probes = [makers[task_of_env.index(row)]() for row in range(len(distinct))]
    for probe in probes:
        check_length(probe, config.segment_length)
    encoding = Encoding(probes[0].observation_space, probes[0].action_space)
    parts = build_parts(
        probes, labeler, camera, checkpoint, device, preset, config, task_of_env, scorer
    )
    is_looking = isinstance(labeler, str) and labeler in SCORERS
    looks: Any = getattr(parts.labeler, "scorer", None) if is_looking else None
    tasks = [Task(sentence) for _, sentence in distinct]
    for task in tasks:
        check_task(looks, task)
    for probe, scene in zip(probes, parts.scenes, strict=True):
        if looks is not None and scene is not None and not is_mujoco(probe):
            probe.reset()
            scene.snapshot(probe)  # tells the scene how large the pictures are that workers send
        probe.close()
    shared = SharedFeedback(
        encoding, [tasks[row] for row in task_of_env], parts.labeler, config, device
    )
    size_px = picture_size(looks)
    workers = [Worker(make, row, looks is not None, size_px) for row, make in enumerate(makers)]
    return Fleet(workers, shared, parts.scenes)


class PreferenceVector(VectorWrapper):
    """Replaces the rewards of a vector by those that one feedback loop learns from all of its envs.

    Everything is as in `PreferenceReward`, of which this is the many: the simulators' rewards are in
    `infos["env_reward"]`, a session is held in this process after the step that it is due after, then all envs are
    paid. Segments never straddle an episode, whatever the autoreset mode. A step that only resets an env (the
    step after its last, in mode NEXT_STEP) is recorded nowhere and paid 0.

    Args:
        env: a vector of `SendsStates` envs.
        shared: what feeds the loop.
        scenes: what is closed with it.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        shared: SharedFeedback,
        scenes: Sequence[Scene | None] = (),
    ) -> None:
        super().__init__(env)
        if env.num_envs != shared.n_envs:
            raise ValueError(
                f"the feedback loop was made for {shared.n_envs} envs, got a vector of {env.num_envs}"
            )
        self.shared = shared
        self._scenes = tuple(scenes)
        self._same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP

    @property
    def loop(self) -> FeedbackLoop:
        """The feedback loop, the same object for good."""
        return self.shared.loop

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes of all envs (or of those in `options["reset_mask"]`); the first `seed` decides all learning.

        Sub-envs get `seed`, `seed + 1` and so on, or those of a list.
        """
        first = seed[0] if isinstance(seed, Sequence) and len(seed) else seed
        self.shared.seed(first)
        with worker_deaths():
            obs, infos = self.env.reset(seed=seed, options=options)
        moments = infos.pop(MOMENT)
        began = infos.pop(f"_{MOMENT}")
        for env, each in enumerate(iterate(self.env.observation_space, obs)):
            if began[env]:
                self.shared.begin(each, moments[env].constants, env)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Apply an action to every env, hold a session if one is due, and pay the learned rewards.

        Raises:
            FeedbackError: an env returned NaN, a worker died, or the labeler failed; see `FeedbackLoop.session`.
        """
        with worker_deaths():
            obs, env_reward, terminated, truncated, infos = self.env.step(actions)
        moments = infos.pop(MOMENT)
        infos.pop(f"_{MOMENT}")
        success = np.zeros(self.num_envs, bool)
        each_obs = list(iterate(self.env.observation_space, obs))
        for env, action in enumerate(iterate(self.env.action_space, actions)):
            moment, after = moments[env], each_obs[env]
            if self._same_step and (terminated[env] or truncated[env]):
                after = infos["final_obs"][env]
                self.shared.observe(action, after, infos["final_info"][MOMENT][env], env)
                success[env] = infos["final_info"][MOMENT][env].success
                self.shared.begin(each_obs[env], moment.constants, env)
            elif moment.constants is None:
                self.shared.observe(action, after, moment, env)
                success[env] = moment.success
            else:
                self.shared.begin(after, moment.constants, env)
        paid = self.shared.pay().astype(np.float64)
        return obs, paid, terminated, truncated, _told(infos, np.asarray(env_reward), success)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of a run depends on, envs in the middle of their episodes included."""
        with worker_deaths():
            states = list(self.env.unwrapped.call("episode_state"))  # type: ignore[attr-defined]
        return {"shared": self.shared.state_dict(), "envs": states}

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Continue from `state_dict()` in a vector that was just made, and return the observations there."""
        with worker_deaths():
            self.env.reset()
            obs = self.env.unwrapped.call("resume_states", list(state["envs"]))  # type: ignore[attr-defined]
        self.shared.load_state_dict(state["shared"])
        space = self.env.single_observation_space
        room: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, obs, room)

    def close(self, **kwargs: Any) -> None:
        """Free the scenes' renderers and the envs."""
        for scene in self._scenes:
            if scene is not None:
                scene.close()
        super().close(**kwargs)


def _told(
    infos: dict[str, Any], env_reward: NDArray[Any], success: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the infos with the simulators' rewards and successes of this step for every env."""
    if "final_info" in infos:
        infos["final_info"].pop(MOMENT)
        infos["final_info"].pop(f"_{MOMENT}")
    everywhere = np.ones(len(env_reward), bool)
    return {
        **infos,
        "env_reward": env_reward.astype(np.float64),
        "_env_reward": everywhere,
        "is_success": success,
        "_is_success": everywhere,
    }


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Name the death of a worker process: pipes break with errors that say nothing."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise FeedbackError(
            "a worker process of the vector died (killed, or out of memory); all labels so far are kept: go on from "
            "the last checkpoint, with fewer envs if memory is short"
        ) from error
