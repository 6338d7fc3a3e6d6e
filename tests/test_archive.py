"""Past episodes of a run, and videos of them."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import vlp_gym  # noqa: F401
from tests.helpers import TASK, decoded, make_episode
from vlp_gym.envs.replay import ReplayConfig, replay
from vlp_gym.errors import CheckpointError, UnknownNameError
from vlp_gym.feedback.archive import ArchivedEpisode, EpisodeArchive, numbers_of
from vlp_gym.scenes.metaworld import metaworld_scene
from vlp_gym.video import captioned


def test_an_episode_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    archive = EpisodeArchive(tmp_path, ["Toy"], [TASK])
    episodes = [make_episode(rng, number, 5 + number) for number in range(12)]
    for episode in episodes:
        archive.add(episode)
    assert numbers_of(tmp_path) == list(range(12))
    found = ArchivedEpisode(tmp_path, 11)
    assert (found.name, found.instruction, len(found)) == ("Toy", TASK.instruction, 16)
    for name in ("snapshots", "env_reward", "success"):
        np.testing.assert_array_equal(getattr(found, name), getattr(episodes[11], name))


def test_a_missing_episode_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no episodes"):
        ArchivedEpisode(tmp_path, 0)
    archive = EpisodeArchive(tmp_path, ["Toy"], [TASK])
    with pytest.raises(CheckpointError, match="none has ended there yet"):
        ArchivedEpisode(tmp_path, 0)
    archive.add(make_episode(np.random.default_rng(0), 3))
    with pytest.raises(CheckpointError, match="no episode 7; it has 3 to 3"):
        ArchivedEpisode(tmp_path, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    schedule = {"segment_length": 5}
    env = gym.make("vlp/DoorClose", labeler="oracle", feedback=schedule, max_episode_steps=9)
    loop = env.get_wrapper_attr("loop")
    loop.on_episode.append(EpisodeArchive(path, ["DoorClose"], loop.tasks).add)
    env.reset(seed=0)  # starts the loop anew: listeners stay
    for _ in range(20):
        if env.step(env.action_space.sample())[3]:
            env.reset()
    return path


def test_a_past_episode_is_drawn_as_it_looked(folder: Path) -> None:
    assert numbers_of(folder) == [0, 1]
    path = replay(ReplayConfig(folder, camera="corner3", size_px=96, every=1))
    assert path == folder / "episode_1_corner3.mp4"
    one = captioned(np.zeros((96, 96, 3), np.uint8), ArchivedEpisode(folder, 1).instruction, False)
    frames = decoded(path, 96, len(one))
    assert len(frames) == 9
    # The same state drawn by the env's own scene; H.264 loses a little.
    env = gym.make("vlp/DoorClose", labeler=None, reward="env")
    scene = metaworld_scene(env, "corner3", 96, "exact")
    past = ArchivedEpisode(folder, 1)
    drawn = scene.draw(past.constants, past.snapshots[4:5])[0].astype(float)
    assert np.abs(frames[4, :96].astype(float) - drawn).mean() < 6
    scene.close()


def test_an_unknown_camera_is_answered_with_the_closest(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="corner3"):
        replay(ReplayConfig(folder, camera="korner3"))
