"""The wrapper that pays a sentence."""

import copy
import json
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.helpers import FakeScorer, ToyReach
from vlp_gym.errors import FeedbackError, InstructionError, UnknownNameError
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.labelers.oracle import OracleLabeler
from vlp_gym.wrappers.encoding import Encoding
from vlp_gym.wrappers.preference import PreferenceReward

FEEDBACK: dict[str, Any] = {
    "budget": 24,
    "queries_per_session": 8,
    "session_every": 30,
    "segment_length": 5,
    "ensemble": {"width": 16, "depth": 2},
    "fit": {"max_epochs": 3},
}


def make(env: gym.Env[Any, Any] | None = None, **settings: Any) -> PreferenceReward:
    given = {"labeler": "oracle", "feedback": FEEDBACK, "device": "cpu", **settings}
    return PreferenceReward(env or ToyReach(), "reach the red dot", **given)


def loop_of(env: PreferenceReward) -> FeedbackLoop:
    assert env.loop is not None
    return env.loop


def play(
    env: gym.Env[Any, Any], steps: int, seed: int | None = 0, actions: int = 5
) -> list[tuple[list[float], float]]:
    """Return observation and reward of each step under fixed actions; resets where episodes end."""
    rng = np.random.default_rng(actions)
    if seed is not None:
        env.reset(seed=seed)
    seen = []
    for _ in range(steps):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        seen.append((obs.tolist(), float(reward)))
        if terminated or truncated:
            env.reset()
    return seen


def rewards(seen: list[tuple[list[float], float]]) -> list[float]:
    return [reward for _, reward in seen]


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_keeps_gymnasiums_promises() -> None:
    check_env(make(ToyReach("rgb_array")), skip_render_check=True)


def test_pays_0_then_what_was_learned() -> None:
    paid = rewards(play(make(), 60))
    assert paid[:29] == [0.0] * 29
    assert all(paid[29:])


def test_a_step_is_paid_after_the_session_of_that_step() -> None:
    env = make()
    obs, _ = env.reset(seed=0)
    for _ in range(30):
        before = obs
        obs, reward, *_, truncated, _ = env.step(np.array([0.5, -0.5], np.float32))
        if truncated:
            obs, _ = env.reset()
    assert loop_of(env).version == 1
    again = loop_of(env).reward(before.astype(np.float32), np.array([0.5, -0.5], np.float32))
    assert reward == again != 0.0


@pytest.mark.parametrize("reward", ["learned", "env"])
def test_info_keeps_the_simulators_reward_and_success(reward: str) -> None:
    env, bare = make(reward=reward), ToyReach()
    env.reset(seed=0)
    bare.reset(seed=0)
    for _ in range(20):
        _, paid, *_, info = env.step(np.ones(2, np.float32))
        _, env_reward, *_, bare_info = bare.step(np.ones(2, np.float32))
        assert type(info["env_reward"]) is float and info["env_reward"] == env_reward
        assert info["is_success"] is bare_info["success"]
        assert paid == (env_reward if reward == "env" else 0.0)


def test_the_envs_reward_needs_neither_labeler_nor_torch() -> None:
    code = (
        "import sys, tests.helpers as h\n"
        "from vlp_gym.wrappers.preference import PreferenceReward\n"
        "env = PreferenceReward(h.ToyReach(), 'reach', labeler=None, reward='env')\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "assert env.loop is None and env.recorder is None\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_seed_decides_everything() -> None:
    runs = [rewards(play(make(), 70, seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_later_seeds_leave_what_was_learned_alone() -> None:
    env = make()
    play(env, 40, seed=1)
    loop = loop_of(env)
    version, n_queries = loop.version, loop.n_queries
    env.reset(seed=2)
    assert env.loop is loop and (loop.version, loop.n_queries) == (version, n_queries)


def test_the_loop_is_one_object_from_the_start() -> None:
    env, seen = make(), []
    loop = loop_of(env)
    loop.on_session.append(seen.append)
    play(env, 40, seed=1)
    assert env.loop is loop and len(seen) == 1
    assert rewards(play(make(), 40, seed=1))[-1] == loop.reward(
        loop.recorder.episodes()[-1].obs[-1], loop.recorder.episodes()[-1].action[-1]
    )


def test_a_seeded_reset_after_an_unseeded_one_decides_as_well() -> None:
    env = make()
    env.reset()
    env.step(np.zeros(2, np.float32))
    assert rewards(play(env, 40, seed=1)) == rewards(play(make(), 40, seed=1))


def test_an_outer_time_limit_ends_episodes_too() -> None:
    env = make(ToyReach(max_steps=None))
    play(gym.wrappers.TimeLimit(env, 7), 30)
    assert [len(episode) for episode in loop_of(env).recorder.episodes()] == [7, 7, 7, 7, 2]


def test_the_ensemble_sees_actions_between_minus_1_and_1() -> None:
    env = make(ToyReach(low=-3.0))
    env.reset(seed=0)
    for action in ([-3.0, 1.0], [-1.0, -1.0], [-9.0, 9.0]):
        env.step(np.array(action, np.float32))
    actions = loop_of(env).recorder.episodes()[-1].action
    np.testing.assert_allclose(actions, [[-1, 1], [0, 0], [-1, 1]], atol=1e-6)


def test_observations_are_those_before_the_action() -> None:
    env = make()
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.ones(2, np.float32))
    env.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(loop_of(env).recorder.episodes()[-1].obs, [first, second])


@pytest.mark.parametrize("stop", [10, 30, 47])
def test_stop_save_load_continue_equals_uninterrupted(stop: int) -> None:
    whole = make()
    paid = play(whole, 100)
    stopped = make()
    head = play(stopped, stop)
    state = copy.deepcopy(stopped.state_dict())
    # The env is put back by hand: SeededEpisodes does that in a whole stack.
    resumed = make(copy.deepcopy(stopped.env))
    resumed.load_state_dict(state)
    rng = np.random.default_rng(5)
    rng.uniform(size=(stop, 2))
    tail = []
    for _ in range(100 - stop):
        action = rng.uniform(-np.ones(2), np.ones(2)).astype(np.float32)
        obs, reward, _, truncated, _ = resumed.step(action)
        tail.append((obs.tolist(), float(reward)))
        if truncated:
            resumed.reset()
    assert head + tail == paid
    resumed.reset(seed=3)  # seeded before the stop: learning stays
    assert loop_of(resumed).version == loop_of(whole).version


def test_the_preference_model_labels_an_env_that_draws_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def load_scorer(name: str, checkpoint: str | None, device: str) -> FakeScorer:
        asked.append((name, checkpoint, device))
        return FakeScorer()

    monkeypatch.setattr("vlp_gym.wrappers.parts.load_scorer", load_scorer)
    env = make(ToyReach("rgb_array"), labeler="vlp", checkpoint="here")
    play(env, 35)
    record = loop_of(env).history[0]
    assert asked == [("vlp", "here", "cpu")]
    assert record["labelled"] == 8 and record["label_accuracy"] > 0.7
    assert {"draw", "score"} <= set(record["seconds"])
    assert loop_of(env).table.column("labeler")[0] == "fake"


def test_a_labeler_of_ones_own_is_used() -> None:
    class Mine(OracleLabeler):
        name = "mine"

    env = make(labeler=Mine())
    play(env, 31)
    assert loop_of(env).table.column("labeler")[0] == "mine"


class Broken(ToyReach):
    """Returns NaN at its third step."""

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        return (obs * np.nan if self._n_steps == 2 else obs, *rest)


def test_nan_observations_are_refused() -> None:
    env = make(Broken())
    env.reset(seed=0)
    with pytest.raises(FeedbackError, match="NaN"):
        for _ in range(5):
            env.step(np.zeros(2, np.float32))


def test_stepping_before_a_reset_says_so() -> None:
    env = make()
    assert env.loop is not None
    with pytest.raises(FeedbackError, match="call reset"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labeler": "orcale"}, UnknownNameError, "oracle"),
        ({"reward": "learnt"}, UnknownNameError, "learned"),
        ({"feedback": {"bugdet": 3}}, UnknownNameError, "budget"),
        ({"labeler": None}, ValueError, "needs a labeler"),
    ],
)
def test_wrong_settings_say_what_is_right(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**settings)


def test_an_empty_instruction_is_refused() -> None:
    with pytest.raises(InstructionError):
        PreferenceReward(ToyReach(), "  ", labeler="oracle")


def test_segments_longer_than_the_time_limit_are_refused_at_once() -> None:
    gym.register("ToyReach-v0", ToyReach, max_episode_steps=4)
    try:
        with pytest.raises(ValueError, match="an episode ends after 4 steps"):
            make(gym.make("ToyReach-v0"))
    finally:
        del gym.registry["ToyReach-v0"]


def test_a_wrapped_env_can_be_made_again_from_its_spec() -> None:
    gym.register("ToyReach-v0", "tests.helpers:ToyReach")
    try:
        env = make(gym.make("ToyReach-v0"))
        assert env.spec is not None
        spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
        again = gym.make(spec)
        assert rewards(play(again, 50)) == rewards(play(env, 50))
    finally:
        del gym.registry["ToyReach-v0"]


def test_feedback_is_plain_json() -> None:
    env = make()
    assert json.loads(json.dumps(env.config.to_dict()))["budget"] == 24


def test_discrete_actions_are_one_hot() -> None:
    encoding = Encoding(gym.spaces.Box(-1, 1, (2, 3)), gym.spaces.Discrete(3, start=1))
    assert encoding.obs_dim == 6 and encoding.action_dim == 3
    assert encoding.action(2).tolist() == [0.0, 1.0, 0.0]
    assert encoding.stored_action_rows(np.array([[1], [3]])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_dicts_are_their_parts_in_a_row() -> None:
    spaces = {"at": gym.spaces.Box(-1, 1, (2,)), "held": gym.spaces.Discrete(2)}
    encoding = Encoding(gym.spaces.Dict(spaces), gym.spaces.Discrete(2))
    assert encoding.obs_dim == 4
    assert encoding.obs({"held": 1, "at": np.array([0.5, -0.5])}).tolist() == [0.5, -0.5, 0, 1]
    rows = {"at": np.zeros((3, 2)), "held": np.array([[0], [1], [0]])}
    assert encoding.obs_rows(rows)[:, 2:].tolist() == [[1, 0], [0, 1], [1, 0]]


def test_spaces_that_cannot_be_learned_from_are_refused() -> None:
    box = gym.spaces.Box(-1, 1, (2,))
    for nested in (gym.spaces.Tuple([box]), gym.spaces.Dict({"a": gym.spaces.Dict({"b": box})})):
        with pytest.raises(TypeError, match="FlattenObservation"):
            Encoding(nested, box)
    with pytest.raises(ValueError, match="no bounds"):
        Encoding(box, gym.spaces.Box(-np.inf, np.inf, (2,)))


def test_an_observation_that_the_env_changes_in_place_is_copied() -> None:
    obs = np.zeros(4, np.float32)
    kept = Encoding(gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)).obs(obs)
    obs[:] = 1
    assert not kept.any()


def test_a_recorded_step_of_meta_world_costs_at_most_400_bytes() -> None:
    env = gym.make("vlp_gym:vlp/DrawerClose", labeler="oracle", max_episode_steps=100)
    env.reset(seed=0)
    for _ in range(100):
        env.step(env.action_space.sample())
    (episode,) = env.get_wrapper_attr("recorder").episodes()
    columns = [episode.env_reward, episode.snapshots, episode.success, *episode.constants.values()]
    assert 0 < sum(column.nbytes for column in columns) / len(episode) <= 400
    env.close()
