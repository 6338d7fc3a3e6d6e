"""All that an agent of Stable-Baselines3 on `vlp/*` envs needs to go on bit for bit after a stop."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from vlp_gym.feedback.state_file import load_state, save_state
from vlp_gym.sb3 import PreferenceVecEnv
from vlp_gym.wrappers.preference import PreferenceReward
from vlp_gym.wrappers.score import ScoreReward
from vlp_gym.wrappers.seeded import SeededEpisodes, find_layer, resume_episode

Envs = gym.Env[Any, Any] | PreferenceVecEnv | DummyVecEnv
"""What an agent acts in."""

REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""Arrays of SB3's replay buffer, each [rows, envs, ...]."""


def save_agent(folder: Path, agent: BaseAlgorithm, env: Envs, extra: Mapping[str, Any]) -> None:
    """Write the agent, its replay buffer if it has one, its env in mid-episode and every random generator.

    Args:
        folder: an empty folder.
        agent: between two calls of `learn`, when no step is half done.
        env: what the agent acts in: a `PreferenceVecEnv`; or one env as `gym.make` returned it or in a `Monitor`, or a
            `DummyVecEnv` of such.
        extra: what else the run wants back from `load_agent`: numbers, strings, lists, dicts.
    """
    agent.save(folder / "agent.zip")
    if isinstance(agent, OffPolicyAlgorithm):
        save_replay(folder / "replay.npz", agent.replay_buffer)
    state = {"env": env_state(env), "random": random_state(agent), "extra": dict(extra)}
    save_state(folder / "state.npz", state)


def load_agent(
    folder: Path, env: Envs, device: str = "auto", kind: Any = SAC
) -> tuple[Any, dict[str, Any]]:
    """Return the agent of a kind that `save_agent` wrote, on a freshly made `env`, and its `extra`."""
    state = load_state(folder / "state.npz")
    restore_env(env, state["env"])
    agent = kind.load(folder / "agent.zip", env=env, device=device, force_reset=False)
    if isinstance(agent, OffPolicyAlgorithm):
        load_replay(folder / "replay.npz", agent.replay_buffer)
    # Last: making the env and the networks has drawn random numbers.
    restore_random(agent, state["random"])
    return agent, state["extra"]


def save_replay(path: Path, replay: ReplayBuffer | None) -> None:
    """Write the filled rows of a replay buffer."""
    assert replay is not None, "SAC makes its replay buffer in its constructor"
    rows = {name: getattr(replay, name)[: replay.size()] for name in REPLAY}
    np.savez(path, position=replay.pos, full=replay.full, **rows)


def load_replay(path: Path, replay: ReplayBuffer | None) -> None:
    """Put the rows that `save_replay` wrote into an empty buffer of the same capacity."""
    assert replay is not None, "SAC makes its replay buffer when it is loaded"
    with np.load(path) as stored:
        for name in REPLAY:
            getattr(replay, name)[: len(stored[name])] = stored[name]
        replay.pos, replay.full = int(stored["position"]), bool(stored["full"])


def env_state(env: Envs) -> dict[str, Any]:
    """Return where the wrappers of an env stand: its episode, its feedback, its statistics."""
    if isinstance(env, PreferenceVecEnv):
        return env.state_dict()
    if isinstance(env, DummyVecEnv):
        return {"envs": [env_state(each) for each in env.envs]}
    seeded = find_layer(env, SeededEpisodes)
    if seeded is None:
        raise ValueError(f"{env} has no SeededEpisodes wrapper; make it with vlp_gym or wrap it")
    state: dict[str, Any] = {"episode": seeded.state_dict()}
    preference, monitor = find_layer(env, PreferenceReward), find_layer(env, Monitor)
    scored = find_layer(env, ScoreReward)
    if preference is not None:
        state["preference"] = preference.state_dict()
    if scored is not None:
        state["scored"] = scored.state_dict()
    if monitor is not None:
        state["monitor"] = {"rewards": monitor.rewards, "total_steps": monitor.total_steps}
    return state


def restore_env(env: Envs, state: Mapping[str, Any]) -> None:
    """Bring a freshly made env, or all of a vector, into the middle of the episode that `env_state` saw."""
    if isinstance(env, PreferenceVecEnv):
        env.load_state_dict(dict(state))
        return
    if isinstance(env, DummyVecEnv):
        for each, of_each in zip(env.envs, state["envs"], strict=True):
            restore_env(each, of_each)
        return
    resume_episode(env, state["episode"])
    preference, monitor = find_layer(env, PreferenceReward), find_layer(env, Monitor)
    scored = find_layer(env, ScoreReward)
    if preference is not None:
        preference.load_state_dict(state["preference"])
    if scored is not None:
        scored.load_state_dict(state["scored"])
    if monitor is not None:
        monitor.rewards = list(state["monitor"]["rewards"])
        monitor.total_steps = state["monitor"]["total_steps"]
        monitor.needs_reset = False


def random_state(agent: BaseAlgorithm) -> dict[str, Any]:
    """Return the state of every generator that SB3 draws from: Python's, NumPy's, torch's, the space's."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys), position, has_gauss, cached),
        "torch": torch.get_rng_state().numpy(),
        "cuda": [each.numpy() for each in cuda],
        "action_space": agent.action_space.np_random.bit_generator.state,
    }


def restore_random(agent: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    """Put every generator back into the state that `random_state` saw."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(torch.from_numpy(state["torch"]))
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([torch.from_numpy(each) for each in state["cuda"]])
    agent.action_space.np_random.bit_generator.state = state["action_space"]
