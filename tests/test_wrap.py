"""`vlp_gym.wrap`: any Gymnasium env under a sentence."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import vlp_gym
from tests.helpers import ToyReach
from vlp_gym.errors import InstructionError, RenderingError
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.wrappers.preference import PreferenceReward


def test_a_mujoco_env_is_recorded_as_states() -> None:
    env = vlp_gym.wrap(gym.make("HalfCheetah-v5"), "run forward", labeler="oracle")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert isinstance(env._scene, MujocoScene)


def test_the_episode_repeats_with_its_seed_as_in_our_own_envs() -> None:
    runs = []
    for _ in range(2):
        env = vlp_gym.wrap(gym.make("HalfCheetah-v5"), "run forward", labeler="oracle")
        env.action_space.seed(0)
        runs.append([env.reset(seed=3)[0], env.reset()[0]])
    assert np.array_equal(*runs)


def test_the_spec_of_a_wrapped_env_makes_it_again() -> None:
    env = vlp_gym.wrap(gym.make("HalfCheetah-v5"), "run forward", labeler="oracle")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, PreferenceReward)
    assert again.task.instruction == "run forward"


def test_gymnasiums_checker_has_no_complaint() -> None:
    env = vlp_gym.wrap(
        ToyReach(), "reach the dot", labeler="oracle", feedback={"segment_length": 5}
    )
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(env, skip_render_check=True)


def test_an_env_that_cannot_draw_is_refused_by_a_labeler_that_looks() -> None:
    with pytest.raises(RenderingError, match="render_mode='rgb_array'"):
        vlp_gym.wrap(ToyReach(), "reach the dot", labeler="vlp")


def test_an_env_that_cannot_draw_can_be_labelled_by_its_return() -> None:
    env = vlp_gym.wrap(ToyReach(), "reach the dot", labeler="oracle")
    env.reset(seed=0)
    env.step(env.action_space.sample())


def test_an_empty_sentence_is_refused() -> None:
    with pytest.raises(InstructionError):
        vlp_gym.wrap(ToyReach(), "", labeler="oracle")
