"""Stable-Baselines3's side of a learned reward: vectors of envs, an up-to-date replay buffer, and the log."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Unpack

import gymnasium as gym
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.her import HerReplayBuffer

from vlp_gym.denormals import flush_denormals
from vlp_gym.envs.vector import fleet_of, metaworld_fleet
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.feedback.outcomes import Outcomes
from vlp_gym.feedback.session import SessionRecord
from vlp_gym.memory import hand_back_freed_memory
from vlp_gym.sb3_scores import ScoreRollouts
from vlp_gym.types import Scene
from vlp_gym.wrappers.preference import PreferenceReward
from vlp_gym.wrappers.shared import SharedFeedback
from vlp_gym.wrappers.states import MOMENT
from vlp_gym.wrappers.vector import EnvFunction, FeedbackOptions, Fleet, worker_deaths

__all__ = [
    "PreferenceVecEnv",
    "RelabelReplay",
    "ScoreRollouts",
    "find_preference",
    "make_vec_env",
    "relabel",
    "wrap_vec_env",
]

logger = logging.getLogger(__name__)

ROWS = 8_192
"""Transitions that are relabelled at once; bounds the memory of a copy."""
PRETRAINING_EVERY = 1_000
"""Env steps after which states are compared with all states anew while pre-training pays."""


class PreferenceVecEnv(VecEnvWrapper):
    """Replaces the rewards of a `VecEnv` by those that one feedback loop learns from all of its envs.

    `make_vec_env` and `wrap_vec_env` make one. It belongs inside of `VecNormalize`: replay buffers keep what is
    underneath that, and what is learned from must not be rescaled by moving statistics.

    Args:
        venv: a vector of `SendsStates` envs.
        shared: what feeds the loop.
        scenes: what is closed with it.
    """

    def __init__(
        self, venv: VecEnv, shared: SharedFeedback, scenes: Sequence[Scene | None] = ()
    ) -> None:
        super().__init__(venv)
        self.shared = shared
        self._scenes = tuple(scenes)
        self._actions: Any = None
        self._seed: int | None = None

    @classmethod
    def of(
        cls, fleet: Fleet, vec_env_cls: type[VecEnv], vec_env_kwargs: Mapping[str, Any] | None
    ) -> "PreferenceVecEnv":
        """Return the vector of a fleet; `vec_env_cls` is `DummyVecEnv` or `SubprocVecEnv`."""
        make: Any = vec_env_cls
        return cls(make(fleet.workers, **(vec_env_kwargs or {})), fleet.shared, fleet.scenes)

    @property
    def loop(self) -> FeedbackLoop:
        """The feedback loop, the same object for good."""
        return self.shared.loop

    def seed(self, seed: int | None = None) -> Sequence[None | int]:
        """Let the next reset follow from `seed`: envs get it, it + 1 and so on; the first decides all learning."""
        self._seed = seed
        return self.venv.seed(seed)

    def reset(self) -> Any:
        """Start episodes of all envs."""
        self.shared.seed(self._seed)
        with worker_deaths():
            obs = self.venv.reset()
        for env in range(self.num_envs):
            self._begin(obs, env)
        return obs

    def step_async(self, actions: Any) -> None:
        """Send an action to every env."""
        self._actions = actions
        with worker_deaths():
            self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Wait for the envs, hold a session if one is due, and pay the learned rewards.

        Raises:
            FeedbackError: an env returned NaN, a worker died, or the labeler failed; see `FeedbackLoop.session`.
        """
        with worker_deaths():
            obs, _, dones, infos = self.venv.step_wait()
        for env, info in enumerate(infos):
            after = info["terminal_observation"] if dones[env] else row_of(obs, env)
            self.shared.observe(self._actions[env], after, info.pop(MOMENT), env)
            if dones[env]:
                self._begin(obs, env)
        return obs, self.shared.pay(), dones, infos

    def _begin(self, obs: Any, env: int) -> None:
        moment = self.venv.reset_infos[env][MOMENT]
        self.shared.begin(row_of(obs, env), moment.constants, env)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of a run depends on, envs in the middle of their episodes included."""
        with worker_deaths():
            states = self.venv.env_method("episode_state")
        return {"shared": self.shared.state_dict(), "envs": list(states)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` in a vector that was just made."""
        with worker_deaths():
            self.venv.env_method("resume_states", list(state["envs"]))
        self.shared.load_state_dict(state["shared"])

    def close(self) -> None:
        """Free the scenes' renderers and the envs."""
        for scene in self._scenes:
            if scene is not None:
                scene.close()
        super().close()


def make_vec_env(
    task: str | Sequence[str],
    n_envs: int = 1,
    instruction: str | Sequence[str] | None = None,
    *,
    max_episode_steps: int = 500,
    vec_env_cls: type[VecEnv] = DummyVecEnv,
    vec_env_kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[FeedbackOptions],
) -> PreferenceVecEnv:
    """Return Meta-World envs that share one sentence, or have one each, and one feedback loop in this process.

    Args:
        task: name of the task, or one for each env.
        n_envs: envs side by side.
        instruction: the sentence, or one for each env; None takes the tasks' own.
        max_episode_steps: time limit of an episode.
        vec_env_cls: `DummyVecEnv`, or `SubprocVecEnv` for a process each. (Stable-Baselines3's own workers load
            torch, because it does when it is imported; ours would not.)
        vec_env_kwargs: arguments of that class. (Forked workers hold each other's pipes open, so that the death of one
            goes unnoticed; the default start method notices.)
        options: of the feedback, see `FeedbackOptions`.
    """
    fleet = metaworld_fleet(n_envs, task, max_episode_steps, instruction, **options)
    return PreferenceVecEnv.of(fleet, vec_env_cls, vec_env_kwargs)


def wrap_vec_env(
    env_fns: Sequence[EnvFunction],
    instruction: str | Sequence[str],
    *,
    vec_env_cls: type[VecEnv] = DummyVecEnv,
    vec_env_kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[FeedbackOptions],
) -> PreferenceVecEnv:
    """Return any envs as `make_vec_env` does; envs of different worlds need different sentences.

    Args:
        env_fns: each makes an env, time limit included.
        instruction: the sentence, or one for each env.
        vec_env_cls: as in `make_vec_env`; so are the others.
        vec_env_kwargs: arguments of that class.
        options: of the feedback, see `FeedbackOptions`.
    """
    return PreferenceVecEnv.of(
        fleet_of(env_fns, instruction, **options), vec_env_cls, vec_env_kwargs
    )


def row_of(obs: Any, env: int) -> Any:
    """Return the observation of one env of a vector; of dicts, a dict."""
    if isinstance(obs, dict):
        return {name: values[env] for name, values in obs.items()}
    return obs[env]


class RelabelReplay(BaseCallback):
    """Pays every stored transition anew whenever the learned reward changed.

    For SAC, TD3, DQN and whatever else keeps a `replay_buffer`; with an on-policy algorithm, which forgets what it was
    paid, it only logs. Put it before callbacks that read what it writes.

    After unsupervised pre-training (`FeedbackConfig.unsupervised`) the critic starts anew, since it has learned what
    newness is worth, and catches up with some extra updates (PEBBLE; BPref `reset_critic`, `reset_update`).

    Logged: `vlp/label_accuracy`, `vlp/fit_accuracy`, `vlp/fit_loss`, `vlp/spread`, `vlp/agreement`, `vlp/queries`,
    `vlp/labels`, `vlp/sessions`, `vlp/seconds_*` at every session; `vlp/learned_return`, `vlp/env_return`,
    `vlp/success`, `vlp/success_at_end` (means of the latest episodes, success at any step and at the last one) and
    `vlp/alarms` (of a learned return that rises without success) at every episode.

    Args:
        verbose: 0 for silence; as in Stable-Baselines3.
        flush_denormals: have torch take numbers below 1e-38 for 0 on the CPU, with which processors are slow and Adam's
            moments fill; see `vlp_gym.denormals.flush_denormals`.
        catch_up: gradient steps of the new critic after pre-training (BPref: 100).
    """

    def __init__(self, verbose: int = 0, flush_denormals: bool = True, catch_up: int = 100) -> None:
        super().__init__(verbose)
        self._flush_denormals, self._catch_up = flush_denormals, catch_up
        self.preference: PreferenceReward | PreferenceVecEnv
        self.shared: SharedFeedback | None = None
        self._version = self._n_sessions = self._pretraining_block = 0

    def _init_callback(self) -> None:
        self.preference = find_preference(self.training_env)
        self.shared = self.preference.shared
        if self.shared is None:
            self._outcomes = Outcomes(self.training_env.num_envs)
        else:
            self._outcomes = self.shared.outcomes
            # What the buffer holds was paid by this version; a loaded run begins here.
            loop = self.shared.loop
            self._version, self._n_sessions = loop.version, len(loop.history)
            self._pretraining_block = loop.steps // PRETRAINING_EVERY
            check_replay(getattr(self.model, "replay_buffer", None), self.shared)
        self._n_episodes = len(self._outcomes)

    def _on_training_start(self) -> None:
        if self._flush_denormals:
            flush_denormals()

    def _on_step(self) -> bool:
        if self.shared is None:
            self._count_step()
        else:
            self._follow(self.shared)
        if len(self._outcomes) != self._n_episodes:
            self._n_episodes = len(self._outcomes)
            for name, value in self._outcomes.means().items():
                self.logger.record(f"vlp/{name}", value)
            if self.shared is not None:
                self.logger.record("vlp/alarms", len(self.shared.alarms))
        return True

    def _follow(self, shared: SharedFeedback) -> None:
        loop = shared.loop
        if len(loop.history) != self._n_sessions:
            self._n_sessions = len(loop.history)
            self._log_session(SessionRecord(**loop.history[-1]))
        if loop.version != self._version:
            is_first = self._version == 0
            self._version = loop.version
            self._relabel(shared)
            if is_first and loop.config.unsupervised:
                self._start_critic_anew()
        elif loop.is_pretraining and loop.steps // PRETRAINING_EVERY != self._pretraining_block:
            self._pretraining_block = loop.steps // PRETRAINING_EVERY
            self._relabel(shared)

    def _relabel(self, shared: SharedFeedback) -> None:
        replay = getattr(self.model, "replay_buffer", None)
        if replay is not None:
            started = perf_counter()
            relabel(replay, shared)
            self.logger.record("vlp/seconds_relabel", perf_counter() - started)

    def _start_critic_anew(self) -> None:
        model: Any = self.model
        if not isinstance(getattr(model, "critic", None), torch.nn.Module):
            if getattr(model, "replay_buffer", None) is not None:
                logger.warning(
                    "pre-training has ended, and %s has no critic of PyTorch's that could start anew: what it learned "
                    "of newness is only unlearned from the rewards that the replay buffer is paid now",
                    type(model).__name__,
                )
            return
        reset_critic(model)
        if (
            self._catch_up
            and model.num_timesteps > model.learning_starts
            and model.replay_buffer.size()
        ):
            model.train(gradient_steps=self._catch_up, batch_size=model.batch_size)
            model.policy.set_training_mode(False)

    def _log_session(self, record: SessionRecord) -> None:
        assert self.shared is not None
        values = {
            "label_accuracy": record.label_accuracy,
            "fit_accuracy": record.fit_accuracy,
            "fit_loss": record.fit_loss,
            "spread": record.spread,
            "agreement": record.agreement,
            "queries": self.shared.config.budget - record.budget_left,
            "budget_left": record.budget_left,
            "labels": record.total_labels,
            "sessions": record.session + 1,
            **{f"seconds_{part}": seconds for part, seconds in record.seconds.items()},
        }
        for name, value in values.items():
            if value is not None:
                self.logger.record(f"vlp/{name}", value)

    def _count_step(self) -> None:
        for env, info in enumerate(self.locals["infos"]):
            paid, is_over = float(self.locals["rewards"][env]), bool(self.locals["dones"][env])
            success = bool(info.get("is_success", False))
            self._outcomes.step(paid, float(info["env_reward"]), success, env)
            if is_over:
                self._outcomes.end(env)


def relabel(replay: ReplayBuffer, shared: SharedFeedback) -> None:
    """Replace the reward of every stored transition by the present learned one.

    Args:
        replay: a buffer of Stable-Baselines3: plain, n-step or of dicts.
        shared: the `shared` of the wrapper that the transitions came from.
    """
    # size() is the whole buffer once it has wrapped round; pos is not.
    for start in range(0, replay.size(), ROWS):
        rows = slice(start, min(start + ROWS, replay.size()))
        for env in range(replay.n_envs):
            stored: Any = replay.observations
            if isinstance(stored, dict):
                obs: Any = {name: values[rows, env] for name, values in stored.items()}
            else:
                obs = stored[rows, env]
            paid = shared.loop.rewards(*shared.stored(obs, replay.actions[rows, env], env))
            replay.rewards[rows, env] = paid
    hand_back_freed_memory()


def check_replay(replay: ReplayBuffer | None, shared: SharedFeedback) -> None:
    """Refuse a buffer that cannot be paid anew: its rewards would silently be wrong.

    Raises:
        ValueError: it computes rewards itself, or keeps other observations than the env gives.
    """
    if isinstance(replay, HerReplayBuffer):
        raise ValueError(
            "HerReplayBuffer computes rewards from the env's own goal distance, which the learned reward replaces; "
            "use ReplayBuffer or DictReplayBuffer"
        )
    if replay is not None and replay.observation_space != shared.encoding.observation_space:
        raise ValueError(
            f"the replay buffer keeps observations of {replay.observation_space}, the reward is learned from "
            f"{shared.encoding.observation_space}: a wrapper outside of the learned reward changes them (for pictures, "
            "VecTransposeImage); wrap the env with it first, then with vlp_gym"
        )


def reset_critic(model: Any) -> None:
    """Give the critic of an actor-critic algorithm of Stable-Baselines3 new weights, and its target and optimiser too.

    The actor keeps its own, and a feature extractor that both share.
    """
    shares = getattr(model.policy, "share_features_extractor", False)
    kept = set(model.critic.features_extractor.modules()) if shares else set()
    for layer in model.critic.modules():
        if layer not in kept and hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    model.critic_target.load_state_dict(model.critic.state_dict())
    model.critic.optimizer.state = defaultdict(dict)


def find_preference(vec_env: Any) -> PreferenceReward | PreferenceVecEnv:
    """Return what pays the envs of a vector: the `PreferenceVecEnv` in it, or the `PreferenceReward` of its only env.

    Raises:
        ValueError: several envs have a loop each, or none has one.
    """
    while isinstance(vec_env, VecEnvWrapper):
        if isinstance(vec_env, PreferenceVecEnv):
            return vec_env
        vec_env = vec_env.venv
    if not isinstance(vec_env, DummyVecEnv) or vec_env.num_envs != 1:
        raise ValueError(
            f"{type(vec_env).__name__} of {vec_env.num_envs} envs has no learned reward in this process; make it with "
            "vlp_gym.sb3.make_vec_env or wrap_vec_env, so that all envs share one feedback loop"
        )
    env: gym.Env[Any, Any] = vec_env.envs[0]
    while isinstance(env, gym.Wrapper):
        if isinstance(env, PreferenceReward):
            return env
        env = env.env
    raise ValueError(
        f"{vec_env.envs[0]} has no learned reward; make it with gym.make('vlp/...') or vlp_gym.wrap"
    )
