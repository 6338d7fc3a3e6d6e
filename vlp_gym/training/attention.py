"""Pictures of which patches and which words of a trajectory met (VLP, figure 4)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch.nn import functional as F

from vlp_gym.atomic import atomic_path
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.models.device import resolve_device
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.tasks.instructions import check_instruction
from vlp_gym.tasks.metaworld import find_task
from vlp_gym.video import write_video

SHOWN_PX = 256
"""Height and width of a picture."""


@dataclass(frozen=True)
class AttentionConfig:
    """Which trajectory to look at, and through which model."""

    trajectories: tyro.conf.Positional[Path]
    """A `<Task>.npz` that `vlp collect` wrote."""
    episode: int = 0
    """Row of the episode."""
    instruction: str | None = None
    """The sentence to read it by; None: the default of the task."""
    out: Path = Path("runs/attention")
    """Folder of `attention.png`, every word on the frames of the whole trajectory, and of `attention.mp4`, where the
    words look while it goes on."""
    checkpoint: Path | None = None
    """A preference model of your own; None: the bundled one."""
    device: str = "auto"
    every: int = 2
    """Steps between the frames of the video."""


def attention(config: AttentionConfig) -> Path:
    """Write attention maps of one trajectory, as an image and as a video, and return their folder.

    Raises:
        CheckpointError: the trajectories or the checkpoint are missing or damaged.
        IndexError: no such episode.
        ValueError: the episode is shorter than a clip.
    """
    data = Trajectories.load(config.trajectories)
    if not 0 <= config.episode < len(data):
        raise IndexError(
            f"{config.trajectories} has episodes 0 to {len(data) - 1}, got {config.episode}"
        )
    sentence = check_instruction(config.instruction or find_task(data.task_name).instruction)
    checkpoint = Checkpoint.from_pretrained(config.checkpoint, str(resolve_device(config.device)))
    episode = data.episode(config.episode)
    snapshots = episode.snapshots[:: config.every]
    n_frames = checkpoint.model.config.n_frames
    stride = max(1, checkpoint.frame_stride // config.every)
    ends = np.arange((n_frames - 1) * stride, len(snapshots))
    if len(ends) == 0:
        raise ValueError(
            f"{data.n_steps} steps are too few for a clip of {n_frames} frames {checkpoint.frame_stride} steps apart"
        )
    scene = metaworld_scene(
        make_sawyer(data.task_name),
        checkpoint.view.camera,
        checkpoint.view.size_px,
        checkpoint.view.preset,
    )
    frames = scene.draw(episode.constants, snapshots)
    scene.close()
    config.out.mkdir(parents=True, exist_ok=True)
    spread = np.linspace(0, len(frames) - 1, n_frames).round().astype(int)
    _write_page(config.out / "attention.png", checkpoint, frames[spread], sentence)

    windows = frames[ends[:, None] - stride * np.arange(n_frames)[::-1]]
    maps = np.concatenate([word_maps(checkpoint, window[None], sentence)[0] for window in windows])
    shown = [
        overlaid(window[-1], heat.mean(0)[-1]) for window, heat in zip(windows, maps, strict=True)
    ]
    success = data.success[config.episode][:: config.every][ends]
    write_video(config.out / "attention.mp4", shown, sentence, success.tolist(), 15)
    return config.out


@torch.inference_mode()
def word_maps(
    checkpoint: Checkpoint, clips: UInt8[np.ndarray, "clips frames height width 3"], sentence: str
) -> tuple[Float[np.ndarray, "clips words frames rows columns"], list[str]]:
    """Return how much every word reads of every place of every frame, and the words.

    A model that stacks frames has one token for a place in all of them: its maps are the same in every frame.
    The maps of a word sum to 1 over places (and frames, where these have tokens of their own).
    """
    model = checkpoint.model
    device = model.place.device
    pixels = torch.from_numpy(np.ascontiguousarray(clips)).to(device)
    features = model.encoders.frames(pixels.flatten(0, 1))
    video = model.read_video(features.view(*clips.shape[:2], *features.shape[1:]))
    tokens = model.encoders.tokenize(sentence).to(device)
    words = model.read_words(tokens[None].expand(len(clips), -1))
    _, weights = model.attention(video, words)
    n_words = int(words.is_word[0].sum())
    side = round(model.encoders.n_patches**0.5)
    # [clips, words, frames or 1, rows, columns], without the marks at both ends
    maps = weights[:, 1 : n_words - 1].float().reshape(len(clips), n_words - 2, -1, side, side)
    maps = maps.expand(-1, -1, clips.shape[1], -1, -1)
    return maps.cpu().numpy(), model.encoders.pieces(tokens[1 : n_words - 1])


def overlaid(
    frame: UInt8[np.ndarray, "height width 3"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "shown shown 3"]:
    """Return a frame, enlarged, under its map; the map is scaled from its smallest to its largest value."""
    size = (SHOWN_PX, SHOWN_PX)
    picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    large = F.interpolate(picture, size, mode="bilinear")[0].permute(1, 2, 0).numpy()
    smooth = F.interpolate(
        torch.tensor(heat, dtype=torch.float32)[None, None],
        size,
        mode="bicubic",
        align_corners=False,
    )[0, 0].numpy()
    smooth = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-9)
    colour = colormaps["inferno"](smooth)[..., :3] * 255
    mixed: UInt8[np.ndarray, "shown shown 3"] = (0.5 * large + 0.5 * colour).astype(np.uint8)
    return mixed


def _write_page(
    path: Path,
    checkpoint: Checkpoint,
    clip: UInt8[np.ndarray, "frames height width 3"],
    sentence: str,
) -> None:
    maps, pieces = word_maps(checkpoint, clip[None], sentence)
    n_words, n_frames = maps.shape[1:3]
    figure = Figure(figsize=(1.8 * n_frames + 1, 1.8 * n_words + 0.4), layout="constrained")
    axes = figure.subplots(n_words, n_frames, squeeze=False)
    for row, piece in enumerate(pieces):
        for column in range(n_frames):
            axes[row, column].imshow(overlaid(clip[column], maps[0, row, column]))
            axes[row, column].set_xticks([])
            axes[row, column].set_yticks([])
        axes[row, 0].set_ylabel(piece, rotation=0, ha="right", fontsize=10)
    figure.suptitle(sentence, fontsize=11)
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=100)
