"""Small stand-ins for simulator and model, for tests that want neither."""

import subprocess
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from vlp_gym.types import Episode, Pair, Segment, Task

TASK = Task("reach the red dot")


class ToyReach(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A point in a square that should reach a dot; drawn as 16 x 16 pixels, no simulator.

    Args:
        render_mode: "rgb_array" or None.
        max_steps: truncates after so many steps; None leaves that to a TimeLimit.
        low: lowest action; the highest is 1.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, render_mode: str | None = None, max_steps: int | None = 20, low: float = -1.0
    ) -> None:
        self.render_mode, self._max_steps = render_mode, max_steps
        self.observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = gym.spaces.Box(low, 1, (2,), np.float32)
        self._at, self._goal, self._n_steps = np.zeros(2), np.zeros(2), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._at, self._goal = self.np_random.uniform(-1, 1, (2, 2))
        self._n_steps = 0
        return self._obs(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        low, high = self.action_space.low, self.action_space.high
        scaled = 2 * (np.clip(action, low, high) - low) / (high - low) - 1
        self._at = np.clip(self._at + 0.2 * scaled, -1, 1)
        self._n_steps += 1
        distance = float(np.linalg.norm(self._at - self._goal))
        is_over = self._max_steps is not None and self._n_steps >= self._max_steps
        return self._obs(), -distance, False, is_over, {"success": distance < 0.2}

    def render(self) -> NDArray[np.uint8]:
        frame = np.zeros((16, 16, 3), np.uint8)
        for color, place in ((0, self._goal), (1, self._at)):
            row, column = np.round((place + 1) * 7.5).astype(int)
            frame[row, column, color] = 255
        return frame

    def _obs(self) -> NDArray[np.float32]:
        return np.concatenate([self._at, self._goal]).astype(np.float32)


class FakeScorer:
    """Scores each frame of `ToyReach` by how close the green pixel is to the red one."""

    name = "fake"
    n_frames = 3
    image_size_px = 16
    camera = "free"
    preset = "fast"

    def __init__(self) -> None:
        self.n_clips = 0

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        self.n_clips += len(clips)
        score = np.zeros(clips.shape[:2], np.float32)
        for index in np.ndindex(score.shape):
            red = np.argwhere(clips[index][..., 0] == 255)
            green = np.argwhere(clips[index][..., 1] == 255)
            score[index] = -np.linalg.norm(red[0] - green[0])
        return score


class DotScene:
    """A scene whose snapshot is the brightness of a 2 x 2 picture; it counts what it draws."""

    def __init__(self) -> None:
        self.n_frames = 0

    def constants(self, env: Any) -> dict[str, NDArray[Any]]:
        return {}

    def snapshot(self, env: Any) -> NDArray[Any]:
        return np.zeros(1)

    def draw(
        self, constants: dict[str, NDArray[Any]], snapshots: NDArray[Any]
    ) -> NDArray[np.uint8]:
        self.n_frames += len(snapshots)
        level = snapshots.reshape(-1, 1, 1, 1).astype(np.uint8)
        return np.broadcast_to(level, (len(level), 2, 2, 3)).copy()

    def close(self) -> None:
        pass


class BrightnessScorer:
    """Scores a clip by its mean brightness, one number a clip."""

    name = "brightness"
    n_frames = 2

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        return clips.mean((1, 2, 3, 4), dtype=np.float32)[:, None]


def make_episode(
    rng: np.random.Generator,
    number: int = 0,
    steps: int = 20,
    obs_dim: int = 4,
    action_dim: int = 2,
) -> Episode:
    """Return an episode whose env reward is the first number of the observation."""
    obs = rng.normal(size=(steps, obs_dim)).astype(np.float32)
    return Episode(
        number=number,
        obs=obs,
        action=rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        env_reward=obs[:, 0].copy(),
        snapshots=rng.integers(0, 255, (steps, 1)).astype(np.float64),
        constants={},
        success=np.zeros(steps, bool),
    )


def make_pair(first_score: float, second_score: float, length: int = 4) -> Pair:
    """Return a pair whose segments have these env rewards and brightnesses at every step."""

    def segment(score: float) -> Segment:
        level = np.full((length, 1), score)
        ones = np.zeros((length, 1), np.float32)
        reward = level[:, 0].astype(np.float32)
        episode = Episode(0, ones, ones, reward, level, {}, np.zeros(length, bool))
        return Segment(episode, 0, length)

    return Pair(segment(first_score), segment(second_score), TASK)


def decoded(video: Path, width: int, height: int | None = None) -> NDArray[np.uint8]:
    """Return the frames of a video of this width [frames, height, width, 3]; square ones unless a height is given."""
    pixels = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(video), *pixels]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height or width, width, 3)
