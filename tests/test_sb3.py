"""Relabelling and logging with Stable-Baselines3."""

import copy
import multiprocessing
import os
import signal
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from tests.helpers import ToyReach
from vlp_gym.errors import FeedbackError
from vlp_gym.sb3 import PreferenceVecEnv, RelabelReplay, wrap_vec_env
from vlp_gym.wrappers.preference import PreferenceReward

FEEDBACK: dict[str, Any] = {
    "budget": 40,
    "queries_per_session": 8,
    "session_every": 50,
    "segment_length": 5,
    "ensemble": {"width": 16, "depth": 2},
    "fit": {"max_epochs": 3},
}


class Discretized(gym.ActionWrapper[Any, Any, Any]):
    """`ToyReach` with four moves."""

    MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(4)

    def action(self, action: Any) -> Any:
        return self.MOVES[action]


def small() -> dict[str, Any]:
    """Return settings of a small model, anew: Stable-Baselines3 writes into `policy_kwargs`."""
    return {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0}


def make(env: gym.Env[Any, Any] | None = None, **feedback: Any) -> PreferenceReward:
    settings = {**FEEDBACK, **feedback}
    inner = env or ToyReach(low=-3.0)
    return PreferenceReward(
        inner, "reach the red dot", labeler="oracle", feedback=settings, device="cpu"
    )


class Checks(BaseCallback):
    """After every step: all stored rewards are those of the present ensemble."""

    def __init__(self, preference: PreferenceReward | PreferenceVecEnv) -> None:
        super().__init__()
        self.preference, self.n_checked, self.logged = preference, 0, {}

    def _on_step(self) -> bool:
        self.logged |= self.logger.name_to_value
        return True

    def _on_rollout_end(self) -> None:
        replay, loop = self.model.replay_buffer, self.preference.loop
        assert loop is not None
        if loop.version and replay.size():
            rows = slice(None, replay.size())
            for env in range(replay.n_envs):
                obs = {name: each[rows, env] for name, each in parts_of(replay.observations)}
                told = obs if isinstance(replay.observations, dict) else obs[""]
                stored = self.preference.shared.stored(told, replay.actions[rows, env], env)
                np.testing.assert_allclose(
                    replay.rewards[rows, env], loop.ensemble(*stored), atol=1e-5
                )
            self.n_checked += 1


def parts_of(observations: Any) -> list[tuple[str, Any]]:
    return list(
        observations.items() if isinstance(observations, dict) else {"": observations}.items()
    )


def learn(
    kind: type[BaseAlgorithm], env: Any, policy: str = "MlpPolicy", **settings: Any
) -> Checks:
    model = kind(policy, env, **small(), **settings)
    preference = env
    while not isinstance(preference, PreferenceReward | PreferenceVecEnv):
        preference = getattr(preference, "env", None) or preference.venv
    checks = Checks(preference)
    model.learn(220, [RelabelReplay(), checks])
    return checks


@pytest.mark.parametrize("buffer_size", [1_000, 64])
@pytest.mark.parametrize("kind", [SAC, TD3])
def test_every_stored_step_has_the_present_reward(
    kind: type[BaseAlgorithm], buffer_size: int
) -> None:
    """With actions in [-3, 1], and also once the buffer has wrapped round."""
    env = make()
    checks = learn(kind, env, buffer_size=buffer_size, learning_starts=10, train_freq=1)
    assert env.loop is not None and env.loop.version == 4 and checks.n_checked > 100


def test_discrete_actions_are_relabelled_too() -> None:
    env = make(Discretized(ToyReach()))
    checks = learn(DQN, env, buffer_size=100, learning_starts=10)
    assert checks.n_checked > 20


def test_on_policy_algorithms_need_no_buffer() -> None:
    env = make()
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, **small())
    model.learn(128, RelabelReplay())
    assert env.loop is not None and env.loop.version == 2


def test_labels_and_returns_are_logged() -> None:
    logged = learn(SAC, gym.wrappers.TimeLimit(make(), 15), learning_starts=200).logged
    assert logged["vlp/label_accuracy"] == 1.0
    assert logged["vlp/queries"] == logged["vlp/labels"] == 32
    assert logged["vlp/env_return"] < 0
    assert {"vlp/success", "vlp/learned_return", "vlp/fit_accuracy", "vlp/seconds_fit"} <= set(
        logged
    )


def test_several_loops_are_refused() -> None:
    model = SAC("MlpPolicy", DummyVecEnv([make, make]), **small())
    with pytest.raises(ValueError, match="DummyVecEnv of 2 envs .*make_vec_env"):
        model.learn(10, RelabelReplay())


def make_vec(n_envs: int = 3, vec_env_cls: Any = DummyVecEnv, **feedback: Any) -> PreferenceVecEnv:
    makers = [partial(ToyReach, max_steps=7 + 2 * env, low=-3.0) for env in range(n_envs)]
    settings: dict[str, Any] = {"labeler": "oracle", "device": "cpu"}
    return wrap_vec_env(
        makers,
        "reach the red dot",
        vec_env_cls=vec_env_cls,
        vec_env_kwargs={"start_method": "fork"} if vec_env_cls is SubprocVecEnv else None,
        feedback={**FEEDBACK, **feedback},
        **settings,
    )


@pytest.mark.parametrize("kind", [SAC, TD3])
def test_several_envs_share_a_loop_and_every_stored_step_has_the_present_reward(
    kind: type[BaseAlgorithm],
) -> None:
    env = make_vec()
    checks = learn(kind, env, buffer_size=120, learning_starts=10)
    assert [record["step"] for record in env.loop.history] == [51, 102, 150, 201]
    assert checks.n_checked > 30
    lengths = {(each.env, len(each)) for each in env.loop.recorder.episodes()[:-3]}
    assert lengths == {(0, 7), (1, 9), (2, 11)}


def test_n_step_returns_are_made_of_the_present_reward() -> None:
    env = make_vec()
    checks = learn(SAC, env, buffer_size=300, learning_starts=10, n_steps=3)
    assert checks.n_checked > 30
    replay = checks.model.replay_buffer
    assert isinstance(replay, NStepReplayBuffer)


class OfDicts(gym.ObservationWrapper[Any, Any, Any]):
    """`ToyReach` that tells place and goal apart."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        box = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"goal": box, "at": box})

    def observation(self, observation: Any) -> Any:
        return {"at": observation[:2], "goal": observation[2:]}


@pytest.mark.parametrize("n_envs", [1, 2])
def test_observations_may_be_dicts(n_envs: int) -> None:
    def maker() -> gym.Env[Any, Any]:
        return OfDicts(ToyReach(max_steps=9))

    if n_envs == 1:
        env: Any = make(maker())
    else:
        settings: dict[str, Any] = {"labeler": "oracle", "feedback": FEEDBACK, "device": "cpu"}
        env = wrap_vec_env([maker] * n_envs, "reach", **settings)
    checks = learn(SAC, env, "MultiInputPolicy", buffer_size=200, learning_starts=10)
    assert checks.n_checked > 30
    episode = env.loop.recorder.episodes()[0]
    # In the order of the space: by name.
    assert (episode.obs[:, 2:] == episode.obs[0, 2:]).all()


def test_subprocesses_learn_as_one_process_does() -> None:
    weights, paid = [], []
    for vec_env_cls in (DummyVecEnv, SubprocVecEnv):
        env = make_vec(2, vec_env_cls)
        model = SAC("MlpPolicy", env, learning_starts=10, **small())
        model.learn(120, RelabelReplay())
        weights.append(next(model.policy.parameters()).detach().numpy().copy())
        paid.append(model.replay_buffer.rewards.copy())
        env.close()
    np.testing.assert_array_equal(*weights)
    np.testing.assert_array_equal(*paid)


class Dying(ToyReach):
    """Its process is killed at the third step."""

    def step(self, action: Any) -> Any:
        if self._n_steps == 2 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def test_a_dead_worker_is_named() -> None:
    settings: dict[str, Any] = {"labeler": "oracle", "feedback": FEEDBACK, "device": "cpu"}
    # Alone: forked workers hold each other's pipes open (Stable-Baselines3's default start method does not).
    env = wrap_vec_env(
        [Dying],
        "reach",
        vec_env_cls=SubprocVecEnv,
        vec_env_kwargs={"start_method": "fork"},
        **settings,
    )
    env.reset()
    with pytest.raises(FeedbackError, match="worker process of the vector died"):
        for _ in range(4):
            env.step(np.zeros((1, 2), np.float32))
    assert env.loop.steps == 2  # what came before is on record
    dead: Any = env.unwrapped
    dead.remotes[0].close()
    dead.processes[0].join()


def test_on_policy_algorithms_learn_from_several_envs() -> None:
    env = make_vec(2)
    PPO("MlpPolicy", env, n_steps=64, batch_size=32, **small()).learn(128, RelabelReplay())
    assert env.loop.version == 2


def test_normalised_observations_leave_the_learned_reward_alone() -> None:
    env = make_vec()
    outside = VecNormalize(env, norm_reward=False)
    checks = learn(SAC, outside, buffer_size=200, learning_starts=10)
    assert checks.n_checked > 30


def test_a_vector_stops_and_goes_on_as_if_it_had_not() -> None:
    def play(env: PreferenceVecEnv, first: int, last: int) -> list[list[float]]:
        actions = np.random.default_rng(5).uniform(-3, 1, (60, 3, 2)).astype(np.float32)
        return [env.step(actions[step])[1].tolist() for step in range(first, last)]

    whole, stopped, resumed = make_vec(), make_vec(), make_vec()
    for env in (whole, stopped):
        env.seed(4)
        env.reset()
    paid = play(whole, 0, 60)
    head = play(stopped, 0, 23)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert head + play(resumed, 23, 60) == paid and any(map(any, paid))


class Watches(BaseCallback):
    """Keeps weights of actor and critic, and how many updates there were, at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def _on_step(self) -> bool:
        model: Any = self.model
        actor, critic = (
            next(part.parameters()).detach().clone() for part in (model.actor, model.critic)
        )
        self.seen.append((actor, critic, model._n_updates))
        return True


def test_after_pre_training_the_critic_starts_anew_and_the_actor_stays() -> None:
    env, watches = make(unsupervised=True), Watches()
    model = SAC("MlpPolicy", env, learning_starts=10, **small())
    # The catch-up is left out here, so that what changes at the first session is the reset alone.
    model.learn(60, [RelabelReplay(catch_up=0), watches])
    assert env.loop is not None and env.loop.version == 1
    changes = [
        [float((after - before).abs().max()) for before, after in zip(*two, strict=True)][:2]
        for two in zip(
            [each[:2] for each in watches.seen],
            [each[:2] for each in watches.seen[1:]],
            strict=False,
        )
    ]
    assert changes[48][1] > 0.1  # between the steps 49 and 50
    assert max(critic for _, critic in changes[:48] + changes[49:]) < 0.01
    assert max(actor for actor, _ in changes) < 0.01


def test_the_new_critic_catches_up() -> None:
    env, watches = make(unsupervised=True), Watches()
    SAC("MlpPolicy", env, learning_starts=10, **small()).learn(
        60, [RelabelReplay(catch_up=30), watches]
    )
    updates = [n for *_, n in watches.seen]
    assert updates[49] - updates[48] == 31


def test_during_pre_training_every_stored_state_is_compared_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vlp_gym.sb3.PRETRAINING_EVERY", 20)
    env = make(unsupervised=True, session_every=100)
    model = SAC("MlpPolicy", env, learning_starts=200, **small())
    model.learn(41, RelabelReplay())
    assert env.loop is not None and env.loop.is_pretraining
    paid = model.replay_buffer.rewards[:41, 0]
    assert (paid[7:] > 0).all()
    # Step 40 looked at 40 states: what it paid differs from what the first steps were paid as they came.
    twice = make(unsupervised=True, session_every=100)
    alone = SAC("MlpPolicy", twice, learning_starts=200, **small())
    alone.learn(41)
    assert (alone.replay_buffer.rewards[:39, 0] != paid[:39]).mean() > 0.9


def test_buffers_that_would_keep_wrong_rewards_are_refused() -> None:
    class Goals(OfDicts):
        def __init__(self) -> None:
            super().__init__(ToyReach())
            box = gym.spaces.Box(-1, 1, (2,), np.float32)
            names = ("observation", "achieved_goal", "desired_goal")
            self.observation_space = gym.spaces.Dict({name: box for name in names})

        def observation(self, observation: Any) -> Any:
            at, goal = observation[:2], observation[2:]
            return {"observation": at, "achieved_goal": at, "desired_goal": goal}

        def compute_reward(self, *goals: Any) -> Any:
            return np.zeros(len(goals[0]))

    env = make(Goals())
    model = SAC("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, **small())
    with pytest.raises(ValueError, match="HerReplayBuffer"):
        model.learn(10, RelabelReplay())
    flat = gym.wrappers.FlattenObservation(make(OfDicts(ToyReach())))
    with pytest.raises(ValueError, match="wrap the env with it first"):
        SAC("MlpPolicy", flat, **small()).learn(10, RelabelReplay())


def test_an_env_without_a_learned_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vlp_gym\.wrap"):
        SAC("MlpPolicy", ToyReach(), **small()).learn(10, RelabelReplay())


def test_the_simulators_reward_needs_no_relabelling() -> None:
    env = PreferenceReward(ToyReach(), "reach", labeler=None, reward="env")
    model = SAC("MlpPolicy", env, learning_starts=100, **small())
    model.learn(40, RelabelReplay())
    assert model.replay_buffer is not None and (model.replay_buffer.rewards[:40] < 0).all()


def test_one_seed_one_agent() -> None:
    weights = []
    for _ in range(2):
        model = SAC("MlpPolicy", make(), learning_starts=10, **small())
        model.learn(120, RelabelReplay())
        weights.append(next(model.policy.parameters()).detach().numpy().copy())
    np.testing.assert_array_equal(*weights)


def test_stable_baselines3s_own_checker_is_content() -> None:
    check_env(make(ToyReach()), warn=True, skip_render_check=True)


@pytest.mark.parametrize("flush", [True, False])
def test_numbers_too_small_to_matter_do_not_slow_the_processor(flush: bool) -> None:
    torch.set_flush_denormal(False)
    agent = SAC("MlpPolicy", make(), learning_starts=1_000, **small())
    try:
        agent.learn(2, RelabelReplay(flush_denormals=flush))
        assert (float(torch.tensor([1e-30]) * 1e-10) == 0) == flush
    finally:
        torch.set_flush_denormal(False)
