"""The worlds of VLM-RM (arXiv 2310.12921): what is asked for in each, word for word, and for how long."""

from dataclasses import dataclass
from typing import Literal

from vlp_gym.errors import UnknownNameError

Kind = Literal["cartpole", "mountain-car", "humanoid"]


@dataclass(frozen=True)
class World:
    """One task of VLM-RM.

    Attributes:
        name: its id is `vlp/<name>`.
        kind: which simulator.
        prompt: the sentence that becomes the reward (table 3).
        baseline: what the scene looks like without the goal (table 3).
        max_episode_steps: time limit, which truncates (appendix C; MountainCar's is not printed and is ours).
    """

    name: str
    kind: Kind
    prompt: str
    baseline: str
    max_episode_steps: int


HUMANOID = "a humanoid robot"

_POSES = {
    "HumanoidKneel": "kneeling",
    "HumanoidLotus": "seated down, meditating in the lotus position",
    "HumanoidStand": "standing up",
    "HumanoidArmsRaised": "standing up, with both arms raised",
    "HumanoidSplits": "practicing gymnastics, doing the side splits",
    "HumanoidHandsOnHips": "standing up with hands on hips",
    "HumanoidArmsCrossed": "standing up, with its arms crossed",
    "HumanoidOneLeg": "standing up on one leg",
}

WORLDS = {
    world.name: world
    for world in (
        World(
            "CartPole",
            "cartpole",
            "pole vertically upright on top of the cart",
            "pole and cart",
            200,
        ),
        World(
            "MountainCar",
            "mountain-car",
            "a car at the peak of the mountain, next to the yellow flag",
            "a car in the mountain",
            200,
        ),
        *(
            World(name, "humanoid", f"{HUMANOID} {pose}", HUMANOID, 100)
            for name, pose in _POSES.items()
        ),
    )
}
"""All of them, by name."""


def find_world(name: str) -> World:
    """Return a world by name, upper or lower case.

    >>> find_world("humanoidkneel").prompt
    'a humanoid robot kneeling'

    Raises:
        UnknownNameError: no such world.
    """
    by_lower = {each.lower(): each for each in WORLDS}
    if name.lower() not in by_lower:
        raise UnknownNameError.of("world", name, list(WORLDS))
    return WORLDS[by_lower[name.lower()]]
