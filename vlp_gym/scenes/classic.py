"""CartPole and MountainCar as pictures of their state: drawn by ourselves, on demand, without a window or pygame.

A snapshot is the state that the env's physics has, two or four numbers. The geometry is Gymnasium's; the textures
of the mountain are our own.
"""

import functools
import math
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlp_gym.types import Frames

HEIGHT, WIDTH = 400, 600
"""Size that Gymnasium draws both in, and so does VLM-RM."""

Picture = UInt8[np.ndarray, "height width 3"]


class ClassicScene:
    """Draws states of one of the two worlds.

    Args:
        kind: "cartpole" or "mountain-car".
        height: height of a frame in pixels; None: 400.
        width: width of a frame in pixels; None: 600.
        textured: whether the mountain has sky, rock and grass; VLM-RM found the plain one unlearnable.
    """

    def __init__(
        self,
        kind: str,
        height: int | None = None,
        width: int | None = None,
        textured: bool = True,
    ) -> None:
        self._draw = draw_cartpole if kind == "cartpole" else draw_mountain_car
        self._settings: dict[str, Any] = {} if kind == "cartpole" else {"textured": textured}
        self._size = (width or WIDTH, height or HEIGHT)
        look = "" if textured or kind == "cartpole" else " plain"
        self.identity = f"{kind}{look} {self._size[1]}x{self._size[0]}"
        """What is drawn and how, apart from the states."""

    def constants(self, env: gym.Env[Any, Any]) -> dict[str, NDArray[Any]]:
        """Return nothing: nothing is fixed at a reset."""
        return {}

    def snapshot(self, env: gym.Env[Any, Any]) -> Float[np.ndarray, " state"]:
        """Return the state of the physics, float64 [state]."""
        return np.array(env.unwrapped.state, np.float64)  # type: ignore[attr-defined]

    def draw(self, constants: dict[str, NDArray[Any]], snapshots: NDArray[Any]) -> Frames:
        """Draw snapshots [frames, state], uint8 [frames, height, width, 3]."""
        return np.stack([self._resized(self._draw(each, **self._settings)) for each in snapshots])

    def _resized(self, image: Image.Image) -> Picture:
        if image.size != self._size:
            # Reduced by area, or thin things vanish between the sampled pixels.
            image = image.resize(self._size, Image.Resampling.BOX)
        return np.asarray(image)

    def close(self) -> None:
        """Do nothing: there is no window."""


def draw_cartpole(state: Float[np.ndarray, " state"]) -> Image.Image:
    """Return a picture of the cart and its pole; state: place in metres, speed, angle in radians, its speed."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    scale = WIDTH / 4.8  # pixels a metre
    ground, cart_width, cart_height, pole_width = HEIGHT - 100, 50.0, 30.0, 10.0
    x, axle = state[0] * scale + WIDTH / 2, ground - cart_height / 4
    draw.line([(0, ground), (WIDTH, ground)], fill=(0, 0, 0))
    half = (cart_width / 2, cart_height / 2)
    draw.rectangle([x - half[0], ground - half[1], x + half[0], ground + half[1]], fill=(0, 0, 0))
    # The pole is twice as long as its centre of mass is away from the axle.
    tip, sine, cosine = scale - pole_width / 2, math.sin(state[2]), math.cos(state[2])
    corners = [
        (-pole_width / 2, -pole_width / 2),
        (-pole_width / 2, tip),
        (pole_width / 2, tip),
        (pole_width / 2, -pole_width / 2),
    ]
    turned = [(x + a * cosine + b * sine, axle - (b * cosine - a * sine)) for a, b in corners]
    draw.polygon(turned, fill=(202, 152, 101))
    radius = pole_width / 2
    draw.ellipse([x - radius, axle - radius, x + radius, axle + radius], fill=(129, 132, 203))
    return image


def draw_mountain_car(state: Float[np.ndarray, " state"], textured: bool = True) -> Image.Image:
    """Return a picture of the car in its valley; state: place from -1.2 to 0.6, and speed."""
    image = _mountain(textured).copy()
    draw = ImageDraw.Draw(image)
    x, y = _place(state[0])
    slope = math.cos(3 * state[0])  # Gymnasium turns the car so
    car = [(-20.0, 10.0), (-20.0, 30.0), (20.0, 30.0), (20.0, 10.0)]
    draw.polygon(
        [_turned(a, b, slope, x, y) for a, b in car], fill=(190, 30, 30) if textured else (0, 0, 0)
    )
    for side in (-10.0, 10.0):
        wheel_x, wheel_y = _turned(side, 10.0, slope, x, y)
        draw.ellipse(
            [wheel_x - 8, wheel_y - 8, wheel_x + 8, wheel_y + 8],
            fill=(60, 60, 60) if textured else (128, 128, 128),
        )
    flag_x, flag_y = _place(0.45)
    draw.line([(flag_x, flag_y), (flag_x, flag_y - 50)], fill=(0, 0, 0), width=2)
    draw.polygon(
        [(flag_x, flag_y - 50), (flag_x, flag_y - 35), (flag_x + 28, flag_y - 42)],
        fill=(230, 205, 20),
    )
    return image


def _height(place: NDArray[np.float64] | float) -> Any:
    return np.sin(3 * np.asarray(place)) * 0.45 + 0.55


def _place(place: float) -> tuple[float, float]:
    """Return where a place of the valley is on the picture."""
    scale = WIDTH / 1.8
    return (place + 1.2) * scale, HEIGHT - float(_height(place)) * scale


def _turned(along: float, up: float, angle: float, x: float, y: float) -> tuple[float, float]:
    sine, cosine = math.sin(angle), math.cos(angle)
    return x + along * cosine - up * sine, y - (along * sine + up * cosine)


@functools.cache
def _mountain(textured: bool) -> Image.Image:
    places = np.linspace(-1.2, 0.6, 300)
    ridge = [_place(place) for place in places]
    if not textured:
        image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
        ImageDraw.Draw(image).line(ridge, fill=(0, 0, 0), width=1)
        return image
    rng = np.random.default_rng(0)
    down = np.linspace(0, 1, HEIGHT)[:, None, None]
    sky = (1 - down) * [120, 175, 235] + down * [225, 238, 250]
    grain = rng.normal(size=(HEIGHT // 8, WIDTH // 8, 1))
    coarse = np.kron(grain, np.ones((8, 8, 1)))  # stones of eight pixels
    rock = np.array([122, 98, 78]) + 12 * coarse + 6 * rng.normal(size=(HEIGHT, WIDTH, 1))
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    ImageDraw.Draw(mask).polygon([*ridge, (WIDTH, HEIGHT), (0, HEIGHT)], fill=1)
    is_rock = np.asarray(mask)[..., None] > 0
    pixels = np.where(is_rock, rock, np.broadcast_to(sky, (HEIGHT, WIDTH, 3)))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(image).line(ridge, fill=(70, 130, 60), width=6)  # grass
    return image
