"""A scripted eye in the place of CLIP's towers, for worlds whose pictures are simple: no weights, and never wrong.

It shows what a reward of VLM-RM's shape can teach where the network is not the limit, and is no result of a network.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vlp_gym.models.towers import Colour, Towers
from vlp_gym.scenes.classic import HEIGHT
from vlp_gym.tasks.vlmrm import World

AXLE_Y, POLE_PX = 292.5, 62.5
"""Row of a picture of CartPole that the pole turns about, and how far from it the middle of the pole is."""
VALLEY_Y, PEAK_Y = 352.0, 58.0
"""Rows of a picture of MountainCar in which the car is at the bottom and at the flag."""


class ScriptedTowers(Towers):
    """Sees one number in a picture, how near the goal is, and says it as a unit vector of two.

    The goal of a world reads as (1, 0) and its baseline as (0, 1). A picture is (near, sqrt(1 - near^2)), so that the
    cosine of picture and goal is `near`: the cosine of the pole's angle, or the car's height above the valley.

    Args:
        world: CartPole or MountainCar.
    """

    image_size_px = 96
    mean: Colour = (0.0, 0.0, 0.0)
    std: Colour = (1.0, 1.0, 1.0)
    fingerprint = "rules of version 1"

    def __init__(self, world: World) -> None:
        super().__init__()
        if world.kind not in ("cartpole", "mountain-car"):
            raise ValueError(f"no scripted eye for {world.name}; take CartPole or MountainCar")
        self.world, self.name = world, f"stand-in:scripted-{world.kind}"

    def see(
        self, pixels: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels"]:
        """Return what pictures in [0, 1] show."""
        red, green, blue = pixels.unbind(1)
        if self.world.kind == "cartpole":
            near = (AXLE_Y - _mean_row((red - blue).clamp(min=0))) / POLE_PX
        else:
            is_car = (red - torch.maximum(green, blue) - 0.3).clamp(min=0)
            near = (VALLEY_Y - _mean_row(is_car)) / (VALLEY_Y - PEAK_Y)
        near = near.clamp(-1, 1)
        return torch.stack([near, (1 - near.square()).sqrt()], dim=-1)

    def tokenize(self, sentence: str) -> Int[Tensor, " context"]:
        """Return 0 for the goal and 1 for anything else."""
        return torch.tensor([int(sentence != self.world.prompt)])

    def read(self, tokens: Int[Tensor, "sentences context"]) -> Float[Tensor, "sentences channels"]:
        """Return the directions of sentences."""
        return torch.eye(2, device=tokens.device)[tokens[:, 0]]


def _mean_row(weight: Float[Tensor, "frames height width"]) -> Float[Tensor, " frames"]:
    """Return the mean row of what is weighted, in the rows of a full-size picture."""
    height = weight.shape[1]
    row = (torch.arange(height, device=weight.device) + 0.5) * HEIGHT / height
    of_row = weight.sum(2)
    mean: Tensor = (of_row * row).sum(1) / of_row.sum(1).clamp(min=1e-6)
    return mean
