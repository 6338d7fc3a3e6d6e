"""One integer decides everything that follows."""

import gymnasium as gym
import numpy as np
import pytest

from tests.sawyer import PAPER_TEST_TASKS, make_seeded, random_actions, rollout
from vlp_gym.tasks.metaworld import TASKS
from vlp_gym.wrappers.seeded import SeededEpisodes, resume_episode


def test_the_same_seed_gives_the_same_run_in_another_env() -> None:
    first, second = make_seeded("Push"), make_seeded("Push")
    for seed in (7, None, None):  # the seed reaches the episodes after the first too
        assert np.array_equal(first.reset(seed=seed)[0], second.reset(seed=seed)[0])
        assert np.array_equal(rollout(first, 30), rollout(second, 30))


def test_another_seed_gives_another_episode() -> None:
    env = make_seeded("Push")
    assert not np.array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])


def test_the_next_episode_of_one_seed_is_another() -> None:
    env = make_seeded("Push")
    assert not np.array_equal(env.reset(seed=1)[0], env.reset()[0])


def test_numpys_global_generator_decides_nothing_and_is_left_alone() -> None:
    env = make_seeded("Push")
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    obs, _ = env.reset(seed=1)
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert np.array_equal(obs, env.reset(seed=1)[0])


def test_two_envs_never_seeded_differ() -> None:
    assert not np.array_equal(make_seeded("Push").reset()[0], make_seeded("Push").reset()[0])


def test_an_episode_leaves_the_users_own_action_sampling_alone() -> None:
    env = make_seeded("Push")
    env.action_space.seed(3)
    expected = [env.action_space.sample() for _ in range(2)]
    env.action_space.seed(3)
    sampled = [env.action_space.sample()]
    env.reset(seed=0)
    sampled.append(env.action_space.sample())
    assert np.array_equal(expected, sampled)


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_does_not_depend_on_the_one_before(task: str) -> None:
    from vlp_gym.scenes.metaworld import scripted_policy

    fresh, used = make_seeded(task), make_seeded(task)
    obs, _ = used.reset(seed=1)
    policy = scripted_policy(task)
    for _ in range(60):  # long enough to move things
        obs, *_ = used.step(np.clip(policy.get_action(obs), -1, 1).astype(np.float32))
    assert np.array_equal(fresh.reset(seed=2)[0], used.reset(seed=2)[0])
    assert np.array_equal(rollout(fresh, 20), rollout(used, 20))


@pytest.mark.parametrize("task", PAPER_TEST_TASKS)
def test_an_episode_resumed_in_the_middle_equals_one_never_stopped(task: str) -> None:
    never_stopped = make_seeded(task)
    never_stopped.reset(seed=3)
    never_stopped.reset()
    rollout(never_stopped, 40)
    state = never_stopped.state_dict()
    resumed = make_seeded(task)
    obs = resumed.load_state_dict(state)

    assert np.array_equal(obs, state["obs"])
    for env in (never_stopped, resumed):
        assert env.unwrapped.data.time == never_stopped.unwrapped.data.time
    assert np.array_equal(never_stopped.unwrapped.data.qacc, resumed.unwrapped.data.qacc)
    assert np.array_equal(rollout(never_stopped, 20, seed=1), rollout(resumed, 20, seed=1))
    assert np.array_equal(never_stopped.reset()[0], resumed.reset()[0])


def test_a_resumed_stack_keeps_its_time_limit() -> None:
    def make() -> gym.Env:
        env = gym.wrappers.PassiveEnvChecker(make_seeded("Reach"))
        return gym.wrappers.TimeLimit(gym.wrappers.OrderEnforcing(env), 10)

    env = make()
    env.reset(seed=0)
    rollout(env, 7)
    resumed = make()
    resume_episode(resumed, env.env.env.env.state_dict())
    ends = [resumed.step(action)[3] for action in random_actions(3)]
    assert ends == [False, False, True]


def test_an_env_that_was_never_reset_resumes_its_generator() -> None:
    env, resumed = make_seeded("Reach"), make_seeded("Reach")
    resumed.load_state_dict(env.state_dict())
    assert np.array_equal(env.reset()[0], resumed.reset()[0])


def test_an_env_that_does_not_follow_its_seed_cannot_be_resumed_unnoticed() -> None:
    env = SeededEpisodes(Unseedable())
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="ended in another state"):
        env.load_state_dict(env.state_dict())


def test_resuming_needs_a_seeded_stack() -> None:
    env = make_seeded("Reach")
    with pytest.raises(ValueError, match="no SeededEpisodes"):
        resume_episode(env.env, env.state_dict())


class Unseedable(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    resets = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        self.resets += 1
        return np.full(1, self.resets / 10, np.float32), {}
