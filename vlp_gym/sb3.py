"""Stable-Baselines3's side of a learned or scored reward: keeps its buffers up to date and logs."""

import logging
from collections import deque
from time import perf_counter
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

from vlp_gym.feedback.session import SessionRecord
from vlp_gym.wrappers.preference import PreferenceReward
from vlp_gym.wrappers.score import ScoreReward

logger = logging.getLogger(__name__)

WrapperT = TypeVar("WrapperT", bound=gym.Wrapper[Any, Any, Any, Any])

ROWS = 65_536
"""Transitions that are relabelled at once; bounds the memory of a copy."""
EPISODES = 20
"""Finished episodes that logged returns and success are averaged over."""


class RelabelReplay(BaseCallback):
    """Pays every stored transition anew whenever the learned reward changed.

    For SAC, TD3, DQN and whatever else keeps a `replay_buffer`; with an on-policy algorithm it only
    logs. Put it before callbacks that read what it writes.

    Logged: `vlp/label_accuracy`, `vlp/fit_accuracy`, `vlp/fit_loss`, `vlp/queries`, `vlp/labels`,
    `vlp/sessions`, `vlp/seconds_*` at every session; `vlp/learned_return`, `vlp/env_return`,
    `vlp/success` (mean of the latest episodes, success at any of their steps) at every episode.

    Args:
        verbose: 0 for silence; as in Stable-Baselines3.
        flush_denormals: have torch take numbers below 1e-38 for 0 on the CPU, in this whole process. Units that the
            changing reward silences leave such numbers in Adam's moments for good, and processors are slow with them.
    """

    def __init__(self, verbose: int = 0, flush_denormals: bool = True) -> None:
        super().__init__(verbose)
        self._flush_denormals = flush_denormals
        self.preference: PreferenceReward
        self._version = 0
        self._n_sessions = 0
        self._returns = np.zeros(2)
        self._is_success = False
        self._episodes: deque[tuple[float, float, float]] = deque(maxlen=EPISODES)

    def _init_callback(self) -> None:
        self.preference = find_preference(self.training_env)
        # What the buffer holds was paid by this version; a loaded run begins here.
        loop = self.preference.loop
        if loop is not None:
            self._version, self._n_sessions = loop.version, len(loop.history)

    def _on_training_start(self) -> None:
        if self._flush_denormals:
            torch.set_flush_denormal(True)

    def _on_step(self) -> bool:
        loop = self.preference.loop
        if loop is not None and len(loop.history) != self._n_sessions:
            self._n_sessions = len(loop.history)
            self._log_session(SessionRecord(**loop.history[-1]))
        if loop is not None and loop.version != self._version:
            self._version = loop.version
            replay = getattr(self.model, "replay_buffer", None)
            if replay is not None:
                started = perf_counter()
                relabel(replay, self.preference)
                self.logger.record("vlp/seconds_relabel", perf_counter() - started)
        self._count_step()
        return True

    def _log_session(self, record: SessionRecord) -> None:
        values = {
            "label_accuracy": record.label_accuracy,
            "fit_accuracy": record.fit_accuracy,
            "fit_loss": record.fit_loss,
            "queries": self.preference.config.budget - record.budget_left,
            "labels": record.total_labels,
            "sessions": record.session + 1,
            **{f"seconds_{part}": seconds for part, seconds in record.seconds.items()},
        }
        for name, value in values.items():
            if value is not None:
                self.logger.record(f"vlp/{name}", value)

    def _count_step(self) -> None:
        info, done = self.locals["infos"][0], bool(self.locals["dones"][0])
        self._returns += float(self.locals["rewards"][0]), info["env_reward"]
        self._is_success |= bool(info.get("is_success", False))
        if not done:
            return
        self._episodes.append((*self._returns, float(self._is_success)))
        names = ("learned_return", "env_return", "success")
        for name, value in zip(names, np.mean(self._episodes, axis=0), strict=True):
            self.logger.record(f"vlp/{name}", float(value))
        self._returns, self._is_success = np.zeros(2), False


def relabel(replay: ReplayBuffer, preference: PreferenceReward) -> None:
    """Replace the reward of every stored transition by the present learned one.

    Args:
        replay: a buffer of Stable-Baselines3 with the steps of one env.
        preference: the wrapper that the transitions came from.
    """
    loop, encoding = preference.loop, preference.encoding
    assert loop is not None
    # size() is the whole buffer once it has wrapped round; pos is not.
    for start in range(0, replay.size(), ROWS):
        rows = slice(start, min(start + ROWS, replay.size()))
        obs, actions = replay.observations[rows, 0], replay.actions[rows, 0]
        replay.rewards[rows, 0] = loop.ensemble(
            encoding.obs_rows(obs), encoding.stored_action_rows(actions)
        )


class ScoreRollouts(BaseCallback):
    """Draws and scores the frames of a rollout in one go, and writes the rewards before they are learned from.

    For every algorithm that collects rollouts (SAC, TD3, DQN, PPO, A2C) in envs that a scorer pays every step
    (`reward="clip"` and the like). Without it each step is drawn and scored by itself, with the same rewards. The
    longer the rollouts, the more it saves: set `train_freq` of an off-policy algorithm to the length of an episode.

    Logged at every episode, means of the latest ones: `vlp/score_return`, `vlp/env_return`, `vlp/success` (at any
    step). `rollout/ep_rew_mean` of Stable-Baselines3's `Monitor` is the scored return as well.

    Args:
        verbose: 0 for silence; as in Stable-Baselines3.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.scored: list[ScoreReward] = []
        self._position = 0
        self._returns = np.zeros((0, 2))
        self._is_success = np.zeros(0, bool)
        self._episodes: deque[tuple[float, float, float]] = deque(maxlen=EPISODES)

    def _init_callback(self) -> None:
        self.scored = find_scored(self.training_env)
        self._returns = np.zeros((len(self.scored), 2))
        self._is_success = np.zeros(len(self.scored), bool)

    def _on_training_start(self) -> None:
        self._position = self._buffer.pos
        for env in self.scored:
            env.collect()
            env.defers = True

    @property
    def _buffer(self) -> Any:
        replay = getattr(self.model, "replay_buffer", None)
        return self.model.rollout_buffer if replay is None else replay  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        infos, dones = self.locals["infos"], self.locals["dones"]
        for i, (info, reward) in enumerate(zip(infos, self.locals["rewards"], strict=True)):
            self._returns[i] += float(reward), info["env_reward"]
            self._is_success[i] |= bool(info.get("is_success", False))
            if dones[i]:
                self._end_episode(i, info)
        return True

    def _end_episode(self, i: int, info: dict[str, Any]) -> None:
        late = info["late_reward"]
        if "episode" in info:  # a Monitor has added up what was paid at once
            info["episode"]["r"] = round(info["episode"]["r"] + late, 6)
        score_return, env_return = self._returns[i] + (late, 0.0)
        self._episodes.append((score_return, env_return, float(self._is_success[i])))
        names = ("score_return", "env_return", "success")
        for name, value in zip(names, np.mean(self._episodes, axis=0), strict=True):
            self.logger.record(f"vlp/{name}", float(value))
        self._returns[i], self._is_success[i] = 0.0, False

    def _on_rollout_end(self) -> None:
        # An off-policy algorithm does not learn before `learning_starts`: until then debts may wait.
        if self.num_timesteps > getattr(self.model, "learning_starts", -1):
            self._pay()

    def _pay(self) -> None:
        buffer = self._buffer
        for column, env in enumerate(self.scored):
            owed = env.collect()[-buffer.buffer_size :]
            rows = (buffer.pos - len(owed) + np.arange(len(owed))) % buffer.buffer_size
            buffer.rewards[rows, column] += owed
        self._position = buffer.pos
        if isinstance(buffer, RolloutBuffer):
            # PPO and A2C made advantages of what was paid at once.
            buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])

    def _on_training_end(self) -> None:
        buffer = self._buffer
        if isinstance(buffer, ReplayBuffer):
            # Another callback that stops the training does so before the step is stored.
            for env in self.scored:
                stored = (buffer.pos - self._position) % buffer.buffer_size
                env.forget((env.n_owed - stored) % buffer.buffer_size)
            self._pay()
        for env in self.scored:
            env.collect()
            env.defers = False


def find_scored(vec_env: Any) -> list[ScoreReward]:
    """Return the `ScoreReward` of every env of a vector.

    Raises:
        ValueError: the envs live in other processes, one has no such wrapper, or rewards are normalised on the way.
    """
    layer = vec_env
    while isinstance(layer, VecEnvWrapper):
        if isinstance(layer, VecNormalize) and layer.norm_reward:
            raise ValueError(
                "VecNormalize normalises rewards before they are scored; make it with norm_reward=False"
            )
        layer = layer.venv
    if not isinstance(layer, DummyVecEnv):
        raise ValueError(
            f"ScoreRollouts needs envs in this process, got {type(layer).__name__}; use a DummyVecEnv, whose envs "
            "share one scorer"
        )
    found = [_wrapper(env, ScoreReward) for env in layer.envs]
    if None in found:
        raise ValueError(
            f"{layer.envs[0]} is not paid by a scorer; make it with gym.make('vlp/...', reward='clip') or vlp_gym.wrap"
        )
    return [env for env in found if env is not None]


def _wrapper(env: gym.Env[Any, Any], kind: type[WrapperT]) -> WrapperT | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, kind):
            return env
        env = env.env
    return None


def find_preference(vec_env: Any) -> PreferenceReward:
    """Return the `PreferenceReward` of a vector of one env.

    Raises:
        ValueError: there are several envs, they live in other processes, or none has the wrapper.
    """
    inner = vec_env.unwrapped
    if not isinstance(inner, DummyVecEnv) or inner.num_envs != 1:
        raise ValueError(
            f"RelabelReplay needs one env in this process, got {inner.num_envs} in "
            f"{type(inner).__name__}; pass the env itself, or a DummyVecEnv of one"
        )
    found = _wrapper(inner.envs[0], PreferenceReward)
    if found is not None:
        return found
    raise ValueError(
        f"{inner.envs[0]} has no learned reward; make it with gym.make('vlp/...') or vlp_gym.wrap"
    )
