"""Stable-Baselines3's side of a learned reward: keeps its replay buffer up to date and logs."""

import logging
from collections import deque
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from vlp_gym.feedback.session import SessionRecord
from vlp_gym.sb3_scores import ScoreRollouts
from vlp_gym.wrappers.preference import PreferenceReward

__all__ = ["RelabelReplay", "ScoreRollouts", "find_preference", "relabel"]

logger = logging.getLogger(__name__)

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
    env: gym.Env[Any, Any] = inner.envs[0]
    while isinstance(env, gym.Wrapper):
        if isinstance(env, PreferenceReward):
            return env
        env = env.env
    raise ValueError(
        f"{inner.envs[0]} has no learned reward; make it with gym.make('vlp/...') or vlp_gym.wrap"
    )
