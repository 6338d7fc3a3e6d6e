"""Small pairs, transitions and trajectories for tests of offline agents; no simulator."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.perceptrons import Shape
from vlp_gym.data.comparisons import Comparisons
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.data.transitions import Transitions
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.training.labelling import LabelConfig, label

OBS_DIM, ACTION_DIM = 39, 4


def make_comparisons(
    n_pairs: int = 12,
    steps: int = 6,
    obs_dim: int = 5,
    action_dim: int = 2,
    seed: int = 0,
    **fields: Any,
) -> Comparisons:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "obs": rng.normal(size=(2 * n_pairs, steps, obs_dim)).astype(np.float32),
        "action": rng.uniform(-1, 1, (2 * n_pairs, steps, action_dim)).astype(np.float32),
        "pairs": np.arange(2 * n_pairs).reshape(n_pairs, 2),
        "label": rng.choice([0.0, 0.5, 1.0], n_pairs).astype(np.float32),
        "weight": np.ones(n_pairs, np.float32),
    }
    arrays["label"][:2] = [0, 1]
    return Comparisons(**{**arrays, **fields})


def make_transitions(
    n_rows: int = 40, obs_dim: int = 5, action_dim: int = 2, **fields: Any
) -> Transitions:
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        "obs": rng.normal(size=(n_rows, obs_dim)).astype(np.float32),
        "action": rng.uniform(-1, 1, (n_rows, action_dim)).astype(np.float32),
        "reward": rng.normal(size=n_rows).astype(np.float32),
        "next_obs": rng.normal(size=(n_rows, obs_dim)).astype(np.float32),
    }
    return Transitions(**{**arrays, **fields})


def make_trajectories(
    task: str = "ButtonPress", n_episodes: int = 6, n_steps: int = 30, seed: int = 0, **fields: Any
) -> Trajectories:
    """Return episodes whose reward is their third action and a number of their own; half are experts."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (n_episodes, n_steps, ACTION_DIM)).astype(np.float32)
    level = np.arange(n_episodes) % 3
    behaviour = np.array(["expert", "medium", "random"])[level]
    obs = rng.normal(size=(n_episodes, n_steps, OBS_DIM)) * 0.1 + level[:, None, None]
    columns: dict[str, Any] = {
        "obs": obs.astype(np.float32),
        "action": action,
        "env_reward": action[..., 2] + level[:, None].astype(np.float32),
        "success": np.zeros((n_episodes, n_steps), bool),
        "snapshots": np.zeros((n_episodes, n_steps, 3)),
    }
    return Trajectories(
        task,
        tuple(behaviour.tolist()),
        np.arange(n_episodes),
        constants={},
        **{**columns, **fields},
    )


def write_pairs(folder: Path, queries: int = 10, length: int = 8) -> tuple[Path, Path]:
    """Write trajectories and a label table of them; return both paths."""
    data, out = folder / "ButtonPress.npz", folder / "ButtonPress.labels.parquet"
    make_trajectories().save(data)
    label(
        LabelConfig(data, out, labeler=OracleLabeler.name, queries=queries, segment_length=length)
    )  # type: ignore[arg-type]
    return data, out


def by_pytorch(shape: Shape, numbers: Tensor, inputs: Tensor, masks: list[Tensor]) -> Tensor:
    """Return the outputs of perceptrons by PyTorch's own operations, one network after the other."""
    found = []
    for network, hidden in enumerate(inputs):
        layers = shape.layers_in(numbers)
        for number, (weight, bias) in enumerate(layers):
            hidden = hidden @ weight[network] + bias[network]
            if number + 1 < len(layers):
                hidden = torch.relu(hidden * masks[number][network] if masks else hidden)
        found.append(hidden)
    return torch.stack(found)
