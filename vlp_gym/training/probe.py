"""A second task for the video tokens while they learn: saying where things are."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class StateProbe(nn.Module):
    """Reads gripper and object positions off the video tokens; thrown away after training."""

    def __init__(self, width: int, n_frames: int) -> None:
        super().__init__()
        self.n_frames = n_frames
        self.look = nn.Linear(width, 8)
        self.read = nn.Sequential(
            nn.Linear(8 * width, 128), nn.GELU(), nn.Linear(128, 6 * n_frames)
        )

    def forward(
        self, video: Float[Tensor, "clips patches width"]
    ) -> Float[Tensor, "clips frames 6"]:
        """Return positions of gripper and object in every frame, metres."""
        attention = self.look(video).softmax(dim=1)  # [clips, patches, 8]
        seen = torch.einsum("cpw,cpk->ckw", video, attention).flatten(1)
        out: Tensor = self.read(seen).unflatten(1, (self.n_frames, 6))
        return out
