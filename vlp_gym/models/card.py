"""The model card of a checkpoint."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlp_gym.models.checkpoint import Checkpoint

_CARD = """---
library_name: vlp-gym
tags: [reinforcement-learning, robotics, preference-learning, vision-language]
license: mit
---
# Vision-language preference model ({clip})

Says which of two clips of a robot follows a sentence better (VLP, arXiv 2502.11918). Trained by vlp-gym.

| | |
|---|---|
| frames | {n_frames} of {size_px} x {size_px} px, {stride} steps apart, upright RGB |
| view | camera `{camera}`, preset `{preset}` |
| sentence | up to {words} tokens; English |
| parameters | {parameters:.1f} M |
| trained on | {n_tasks} Meta-World tasks, split `{split}`, {steps} batches, seed {seed}{averaged} |
| and on | {n_undoing} tasks of ours that undo some of these, in the words of their counterparts |
| learning agents | {replayed} |
| training data | fingerprint `{fingerprint}` |
| encoders started from | {start} |

## Use

```python
import gymnasium as gym
import vlp_gym

env = gym.make("vlp/DoorClose", instruction="close the door", checkpoint="THIS FOLDER")
```

## What it is not

Scores of different sentences, or of other cameras, cannot be compared. It has seen one simulator only; the tasks of the
split that are not listed in `config.json` under `train_tasks` were never shown to it, though tasks under `undoing` may
be much like them. Its figures are made by `vlp evaluate` and stand in the README of vlp-gym.
"""


def model_card(checkpoint: "Checkpoint") -> str:
    """Return the model card of a checkpoint, in Markdown."""
    model, training = checkpoint.model, checkpoint.training
    n_parts = n_trainings(training)
    n_replayed = len(training.get("replays", ()))
    base = training.get("base")
    begun = training.get("start") or "random weights"
    return _CARD.format(
        clip=model.config.clip,
        n_frames=model.config.n_frames,
        size_px=checkpoint.view.size_px,
        stride=checkpoint.frame_stride,
        camera=checkpoint.view.camera,
        preset=checkpoint.view.preset,
        words=model.encoders.context_length,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        n_tasks=len(training.get("train_tasks", ())),
        n_undoing=len(training.get("undoing", ())),
        averaged=f", a mean of {n_parts} trainings" if n_parts > 1 else "",
        replayed=f"their segments in {n_replayed} of the tasks" if n_replayed else "none shown",
        split=training.get("split"),
        steps=training.get("steps"),
        seed=training.get("seed"),
        fingerprint=training.get("fingerprint"),
        start=begun if base is None else f"a checkpoint of data {base.get('fingerprint')}",
    )


def n_trainings(training: Mapping[str, Any]) -> int:
    """Return how many trainings a checkpoint is a mean of, those of means among its parts included.

    What several of them began with counts once.
    """
    return len(_leaves(training))


def _leaves(training: Mapping[str, Any]) -> set[str]:
    parts = training.get("average_of")
    if not parts:
        return {json.dumps(training, sort_keys=True)}
    return set().union(*(_leaves(part) for part in parts))
