"""Chooses among the policies of a run by the labeler itself: preferences between whole policies.

A reward that is learned online keeps moving, and a policy that follows it comes and goes. What the labeler
thinks of what the policies do stands still, and no word of the simulator's success is needed for it.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BasePolicy

from agents.evaluation import Policy, episode_seeds
from vlp_gym.atomic import atomic_path
from vlp_gym.types import Episode, Labeler, Pair, Scene, Segment, Task

FOLDER = "policies"
"""Where a run keeps its candidates."""


def keep_policy(folder: Path, agent: SAC) -> None:
    """Save the agent's policy of this step as a candidate."""
    path = folder / FOLDER / f"step_{agent.num_timesteps:08d}.pt"
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        agent.policy.save(str(temporary))


def load_policies(folder: Path, agent: SAC) -> dict[int, BasePolicy]:
    """Return the candidates of a run by step."""
    paths = sorted((folder / FOLDER).glob("step_*.pt"))
    kind = type(agent.policy)
    return {
        int(path.stem.removeprefix("step_")): kind.load(str(path), agent.device) for path in paths
    }


def greedy(policy: BasePolicy | SAC) -> Policy:
    """Return a policy without its exploration noise."""
    return lambda obs: policy.predict(obs, deterministic=True)[0]


def record_episode(
    policy: Policy, env: gym.Env[Any, Any], scene: Scene | None, seed: int
) -> Episode:
    """Return one episode of a policy, in a form that every labeler reads."""
    obs, _ = env.reset(seed=seed)
    constants = {} if scene is None else scene.constants(env)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("obs", "action", "reward", "state", "success")
    }
    ended = False
    while not ended:
        action = np.asarray(policy(obs), np.float32)
        rows["obs"].append(np.asarray(obs, np.float32))
        rows["action"].append(action)
        obs, reward, terminated, truncated, info = env.step(action)
        rows["reward"].append(np.float32(info.get("env_reward", reward)))
        rows["state"].append(np.zeros(0) if scene is None else scene.snapshot(env))
        rows["success"].append(bool(info["is_success"]))
        ended = terminated or truncated
    columns = {name: np.stack(values) for name, values in rows.items()}
    return Episode(
        number=seed,
        obs=columns["obs"],
        action=columns["action"],
        env_reward=columns["reward"],
        snapshots=columns["state"],
        constants=constants,
        success=columns["success"],
    )


def tournament(
    candidates: Sequence[Sequence[Episode]], labeler: Labeler, task: Task, segment_length: int
) -> Float[np.ndarray, " candidates"]:
    """Return the share of comparisons that each candidate wins, by what its episodes end with.

    Args:
        candidates: episodes of every candidate; the k-th of each have the same start.
        labeler: compares the last segments of the k-th episodes of every two candidates.
        task: what it judges by.
        segment_length: steps of a segment.
    """
    ends = [[_end(episode, segment_length) for episode in episodes] for episodes in candidates]
    meetings = [
        (i, j, Pair(first, second, task))
        for i, j in combinations(range(len(ends)), 2)
        for first, second in zip(ends[i], ends[j], strict=True)
        if first.length == second.length
    ]
    won, met = np.zeros(len(ends)), np.zeros(len(ends))
    labels = labeler([pair for _, _, pair in meetings]) if meetings else None
    for row, (i, j, _) in enumerate(meetings):
        assert labels is not None
        if labels.labelled[row]:
            won[j] += labels.value[row]
            won[i] += 1 - labels.value[row]
            met[[i, j]] += 1
    return won / np.maximum(met, 1)


def _end(episode: Episode, segment_length: int) -> Segment:
    length = min(segment_length, len(episode))
    return Segment(episode, len(episode) - length, length)


def choose(
    policies: dict[int, BasePolicy],
    env: gym.Env[Any, Any],
    preference: Any,
    episodes: int,
    seed: int,
) -> int:
    """Return the step of the policy that the labeler prefers; of equals the latest.

    Args:
        policies: candidates by step.
        env: where they act; its reward is not looked at unless the labeler is the oracle.
        preference: the `PreferenceReward` wrapper of the run, for its labeler, scene and task.
        episodes: episodes of every candidate.
        seed: decides the episodes; they are not those of any evaluation.
    """
    seeds = episode_seeds(seed + 1_000_003, episodes)
    recorded = [
        [record_episode(greedy(policy), env, preference.scene, each) for each in seeds]
        for policy in policies.values()
    ]
    share = tournament(
        recorded, preference.labeler, preference.task, preference.config.segment_length
    )
    best = len(share) - 1 - int(np.argmax(share[::-1]))
    return list(policies)[best]
