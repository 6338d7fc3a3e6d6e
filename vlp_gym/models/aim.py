"""Where things are on a clip, and which way a sentence wants them moved. Ours, not in VLP."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

SCALE = 5.0
"""What metres are multiplied with: the ways of most tasks are about 1 long then."""

MIDDLE_M = (0.0, 0.65, 0.15)
"""Middle of the table, just above it, in Meta-World's coordinates."""


class StateProbe(nn.Module):
    """Reads gripper and object positions off the video tokens.

    Args:
        width: of a token.
        n_frames: of a clip.
    """

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


class Aim(nn.Module):
    """Compares where things are with where a sentence wants them.

    "Open the drawer" and "close the drawer" share all but a word, and a clip that is good under the one is bad under
    the other: a sum of what is seen and what is said cannot tell, a product can.

    Args:
        width: of a token.
        n_frames: of a clip.
    """

    def __init__(self, width: int, n_frames: int) -> None:
        super().__init__()
        self.where = StateProbe(width, n_frames)
        self.wanted = nn.Linear(width, 3)
        self.n_features = 3 * n_frames

    def forward(
        self,
        video: Float[Tensor, "clips patches width"],
        meant: Float[Tensor, "clips width"],
    ) -> Float[Tensor, "clips features"]:
        """Return how far the object is the wanted way in every frame, then how far ahead of the gripper, then the gap.

        Args:
            video: tokens of the clips.
            meant: mean word of the sentence of every clip.
        """
        seen = self.where(video).unflatten(-1, (2, 3)) - video.new_tensor(MIDDLE_M)
        hand, thing = (SCALE * seen).unbind(dim=-2)  # [clips, frames, 3] each
        wanted = self.wanted(meant).unsqueeze(1)
        gap = (hand - thing).square().sum(-1).add(1e-4).sqrt()
        ahead = thing - hand
        return torch.cat([(wanted * thing).sum(-1), (wanted * ahead).sum(-1), gap], dim=-1)
