"""Meta-World's pitfalls, one test a cure."""

import warnings

import gymnasium as gym
import numpy as np
import pytest

import vlp_gym  # noqa: F401  (registers)
from tests.sawyer import make_seeded, random_actions, rollout
from vlp_gym.envs.metaworld import MetaworldEnv
from vlp_gym.scenes.metaworld import metaworld_scene
from vlp_gym.tasks.metaworld import TASKS


def test_pictures_of_the_corner_cameras_are_upright() -> None:
    env = MetaworldEnv("Reach", render_mode="rgb_array", camera="corner", height=64, width=64)
    env.reset(seed=0)
    brightness = env.render().mean((1, 2))
    # Beyond the table lies a dark void, in the upper part of the picture; upside down it is below.
    assert brightness[:16].mean() != pytest.approx(brightness[-16:].mean(), rel=0.05)
    upside_down = env.sawyer.data.camera("corner").xmat.reshape(3, 3)[2, 1] < 0
    assert upside_down
    scene_frame = metaworld_scene(env, "corner", 64).draw(
        env._scene.constants(env), env._scene.snapshot(env)[None]
    )
    assert np.array_equal(env.render(), scene_frame[0])


def test_rendering_two_tasks_in_turn_corrupts_neither() -> None:
    settings = {"render_mode": "rgb_array", "height": 48, "width": 48}
    first, second = (make_seeded(task, **settings) for task in ("ButtonPress", "DoorClose"))
    first.reset(seed=0)
    second.reset(seed=0)
    alone = first.render()
    for _ in range(2):
        second.render()
        assert np.array_equal(first.render(), alone)


def test_reset_follows_its_seed() -> None:
    env = MetaworldEnv("Push")
    first = env.reset(seed=5)[0]
    assert not np.array_equal(first, env.reset(seed=6)[0])
    assert np.array_equal(first, env.reset(seed=5)[0])


def test_sub_envs_of_a_vector_differ_and_repeat_with_the_seed() -> None:
    envs = gym.make_vec("vlp/Push", num_envs=2, vectorization_mode="sync", reward="env")
    obs = envs.reset(seed=0)[0]
    assert not np.array_equal(obs[0], obs[1])
    assert np.array_equal(obs, envs.reset(seed=0)[0])


@pytest.mark.parametrize("task", ["Reach", "PegInsertSide", "DialTurn"])
def test_observations_lie_in_their_space_and_making_warns_of_nothing(task: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(f"vlp/{task}", reward="env")
        obs, _ = env.reset(seed=0)
        assert obs in env.observation_space
        for action in random_actions(20):
            assert env.step(action)[0] in env.observation_space


@pytest.mark.parametrize("task", TASKS)
def test_the_goal_is_visible_in_every_observation(task: str) -> None:
    env = make_seeded(task)
    at_reset, _ = env.reset(seed=0)
    goal = env.unwrapped.sawyer._target_pos.astype(np.float32)
    assert np.array_equal(at_reset[-3:], goal)
    for action in random_actions(2):
        assert np.array_equal(env.step(action)[0][-3:], goal)


def test_goals_are_drawn_anew_for_every_episode() -> None:
    env = make_seeded("Reach")
    goals = {tuple(env.reset(seed=0 if i == 0 else None)[0][-3:]) for i in range(60)}
    assert len(goals) == 60  # Meta-World's own set ends at 50


def test_only_the_time_limit_ends_an_episode_also_beyond_500_steps() -> None:
    env = gym.make("vlp/Reach", reward="env", max_episode_steps=510)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(510)]
    assert ends[:-1] == [(False, False)] * 509
    assert ends[-1] == (False, True)


def test_success_does_not_end_an_episode_and_is_a_bool() -> None:
    from vlp_gym.scenes.metaworld import scripted_policy

    env, policy = (
        gym.make("vlp/Reach", reward="env", max_episode_steps=100),
        scripted_policy("Reach"),
    )
    obs, _ = env.reset(seed=0)
    successes = []
    for _ in range(100):
        action = np.clip(policy.get_action(obs), -1, 1).astype(np.float32)
        obs, _, terminated, _, info = env.step(action)
        assert not terminated
        assert info["is_success"] is info["success"]
        successes.append(info["is_success"])
    assert set(map(type, successes)) == {bool}
    assert successes[0] is False
    assert True in successes


def test_a_snapshot_restores_what_the_simulators_own_state_forgets() -> None:
    env, twin = make_seeded("ButtonPress"), make_seeded("ButtonPress")
    env.reset(seed=1)
    rollout(env, 10)
    twin.reset(seed=2)
    scene = metaworld_scene(twin)
    restored = scene.restore(scene.constants(env), scene.snapshot(env))
    live = env.unwrapped.data
    for part in ("geom_xpos", "geom_xmat", "site_xpos", "mocap_pos"):
        assert np.array_equal(getattr(restored, part), getattr(live, part)), part


def test_the_stand_in_for_a_goal_env_is_gone() -> None:
    """Stable-Baselines3 takes any env with `compute_reward` for a goal env and refuses its observations."""
    assert not hasattr(gym.make("vlp/Reach", reward="env").unwrapped, "compute_reward")
