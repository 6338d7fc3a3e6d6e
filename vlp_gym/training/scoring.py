"""Scores of a data set's clips, from their cached features."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from vlp_gym.models.vlp import VLP
from vlp_gym.training.features import TaskClips

CHUNK = 128
"""Clips scored at a time."""


@torch.inference_mode()
def score_clips(
    model: VLP, task: TaskClips, rows: Int[np.ndarray, " rows"], sentences: Sequence[str]
) -> Float[np.ndarray, "sentences rows"]:
    """Return the score of clips under several sentences."""
    model.eval()
    device = model.place.device
    words = model.read_words(
        torch.stack([model.encoders.tokenize(s) for s in sentences]).to(device)
    )
    scores = np.empty((len(sentences), len(rows)), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        video = model.read_video(model.see(task.gather(part).to(device)))
        for i in range(len(sentences)):
            same = torch.full((len(part),), i, device=device)
            scores[i, start : start + CHUNK] = model.score(video, words[same]).float().cpu().numpy()
    return scores
