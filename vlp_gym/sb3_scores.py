"""Stable-Baselines3's side of a reward by a scorer: scores rollouts in one go, and pays its buffers."""

from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

from vlp_gym.wrappers.score import ScoreReward
from vlp_gym.wrappers.seeded import find_layer

EPISODES = 20
"""Finished episodes that logged returns and success are averaged over."""


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
        # A time limit of your own around the wrapper is seen by it at the reset only, which has taken place.
        late = info.get("late_reward", self.scored[i].late_reward)
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
    found = [find_layer(env, ScoreReward) for env in layer.envs]
    if None in found:
        raise ValueError(
            f"{layer.envs[0]} is not paid by a scorer; make it with gym.make('vlp/...', reward='clip') or vlp_gym.wrap"
        )
    return [env for env in found if env is not None]
