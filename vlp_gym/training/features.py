"""Features of a data set's frames, computed once by the frozen encoder and read through a memory map."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from vlp_gym.atomic import atomic_path
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.models.encoders import ClipEncoders
from vlp_gym.training.clips import ClipSet, Rank, clips_of
from vlp_gym.training.frames import FrameArray, FrameGrid, cached_frames
from vlp_gym.training.jitter import STILL, Jitter
from vlp_gym.types import View

FeatureArray = Float[np.ndarray, "episodes frames patches channels"]


@dataclass(frozen=True)
class TaskClips:
    """Everything that training and evaluation read of one task.

    Attributes:
        clips: which frames make the clips, and what they are worth.
        features: encoder features of all frames, float16 [episodes, frames, patches, channels]; where the encoder is
            trained, too, the frames themselves, uint8 [episodes, frames, height, width, 3].
        state: where the gripper and the object were on every frame, in metres, float32 [episodes, frames, 6].
        still: whether every episode is drawn as the view says, and not with a look of its own.
    """

    clips: ClipSet
    features: FeatureArray | FrameArray
    state: Float[np.ndarray, "episodes frames 6"]
    still: bool = True

    def gather(self, rows: np.ndarray) -> torch.Tensor:
        """Return what `VLP.see` reads of the clips `rows`: their features as they are kept, or their frames."""
        return torch.from_numpy(
            self.features[self.clips.episode[rows, None], self.clips.frame[rows]]
        )

    def gather_state(self, rows: np.ndarray) -> torch.Tensor:
        """Return gripper and object positions of the clips `rows`, float32 [clips, frames, 6]."""
        return torch.from_numpy(self.state[self.clips.episode[rows, None], self.clips.frame[rows]])


def task_clips(
    data: Trajectories,
    encoders: ClipEncoders,
    view: View,
    grid: FrameGrid,
    n_frames: int,
    cache: Path,
    *,
    encoded: bool = True,
    rank: Rank = "return",
    jitter: Jitter = STILL,
) -> TaskClips:
    """Return the clips of one task with their features, drawing and encoding what is not cached.

    Args:
        data: trajectories of one task.
        encoders: the encoder; the cache belongs to its very architecture and weights.
        view: how frames are drawn.
        grid: which steps are drawn.
        n_frames: frames of a clip.
        cache: folder of drawn frames and features.
        encoded: False leaves the frames as they are, for an encoder that is trained.
        rank: what windows are ranked by, as in `clips_of`.
        jitter: how the look of one episode differs from that of the next.
    """
    frames = cached_frames(data, view, grid, cache / "frames", jitter)
    steps = grid.steps(data.n_steps, data.seed)
    rows = np.arange(len(data))[:, None]
    # A frame shows the state after its step: that is the observation before the next one.
    seen = data.obs[rows, np.minimum(steps + 1, data.n_steps - 1)]
    state = np.concatenate([seen[..., :3], seen[..., 4:7]], axis=-1).astype(np.float32)
    clips = clips_of(data, grid, n_frames, rank)
    if not encoded:
        return TaskClips(clips, frames, state, jitter.is_still)
    key = _key(encoders, view, grid, jitter)
    path = cache / "features" / f"{data.task_name}-{data.fingerprint()[:12]}-{key}.npy"
    features = _cached_features(frames, encoders, path)
    return TaskClips(clips, features, state, jitter.is_still)


def _cached_features(frames: FrameArray, encoders: ClipEncoders, path: Path) -> FeatureArray:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.save(temporary, encode_frames(frames, encoders))
    features: FeatureArray = np.load(path, mmap_mode="r")
    return features


@torch.inference_mode()
def encode_frames(frames: FrameArray, encoders: ClipEncoders) -> FeatureArray:
    """Return the features of frames, float16 [episodes, frames, patches, channels]."""
    device, block = encoders.mean.device, encoders.frames_at_once
    encoders = encoders.for_inference()
    flat = frames.reshape(-1, *frames.shape[2:])
    features = np.empty((len(flat), encoders.n_patches, encoders.frame_width), np.float16)
    for start in tqdm(range(0, len(flat), block), desc="encoding", leave=False, disable=None):
        pixels = torch.from_numpy(np.array(flat[start : start + block])).to(device)
        features[start : start + block] = encoders.frames(pixels).float().cpu().numpy()
    return features.reshape(*frames.shape[:2], *features.shape[1:])


def _key(encoders: ClipEncoders, view: View, grid: FrameGrid, jitter: Jitter) -> str:
    look = (view, grid, encoders.architecture) + (() if jitter.is_still else (jitter,))
    digest = hashlib.blake2b(repr(look).encode(), digest_size=8)
    for name, weights in encoders.clip.visual.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
