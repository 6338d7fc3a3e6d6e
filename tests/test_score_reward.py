"""A scorer as the reward: what a step, an episode and its end are paid, at once or late."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

import vlp_gym
from tests.helpers import FakeScorer, ToyReach
from vlp_gym.errors import FeedbackError, RenderingError, SettingError, UnknownNameError
from vlp_gym.types import Task
from vlp_gym.wrappers.score import ScoreReward
from vlp_gym.wrappers.seeded import SeededEpisodes, resume_episode


class OfFrames(FakeScorer):
    """Counts its calls and frames; asks for the frames as the env draws them."""

    unit = "frame"

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        self.batches.append(clips.shape[0] * clips.shape[1])
        return super().__call__(clips, task)


class OfClips(OfFrames):
    """One score a clip, that of its last frame."""

    unit = "clip"
    n_frames = 4

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        assert clips.shape[:2] == (1, self.n_frames)
        return super().__call__(clips, task)[:, -1:]


class Remembers(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the frame after every step, as it is before any reset."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.frames: list[NDArray[np.uint8]] = []
        self.first: list[NDArray[np.uint8]] = []

    def reset(self, **how: Any) -> Any:
        out = self.env.reset(**how)
        self.first.append(np.asarray(self.env.render()))
        return out

    def step(self, action: Any) -> Any:
        out = self.env.step(action)
        self.frames.append(np.asarray(self.env.render()))
        return out


def toy(steps: int = 6) -> gym.Env[Any, Any]:
    return ToyReach("rgb_array", steps)


def make(scorer: Any = None, env: gym.Env[Any, Any] | None = None, **pay: Any) -> ScoreReward:
    return ScoreReward(env or toy(), "reach the red dot", scorer or OfFrames(), pay)


def scores_of(frames: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    return np.asarray(FakeScorer()(np.stack(frames)[None], Task("-"))[0], np.float64)


def play(env: gym.Env[Any, Any], steps: int, seed: int = 0) -> tuple[NDArray[Any], list[Any]]:
    """Return the rewards and infos of some steps of episode after episode."""
    actions = np.random.default_rng(seed)
    rewards, infos = [], []
    env.reset(seed=seed)
    for _ in range(steps):
        _, reward, terminated, truncated, info = env.step(actions.uniform(-1, 1, 2))
        rewards.append(float(reward))
        infos.append(info)
        if terminated or truncated:
            env.reset()
    return np.array(rewards), infos


def test_a_step_is_paid_the_score_of_the_frame_after_it() -> None:
    seen = Remembers(toy())
    rewards, infos = play(make(env=seen), 15)
    np.testing.assert_allclose(rewards, scores_of(seen.frames), rtol=1e-6)
    assert all("env_reward" in info for info in infos)


def test_the_last_frame_is_that_of_the_terminal_state_and_not_of_the_next_reset() -> None:
    seen = Remembers(toy(6))
    rewards, _ = play(make(env=seen), 6)
    last, next_reset = scores_of(seen.frames)[-1], scores_of(seen.first[1:])[0]
    assert rewards[-1] == pytest.approx(last, rel=1e-6) and last != next_reset


def test_potential_pays_differences_from_the_first_frame_on() -> None:
    seen = Remembers(toy())
    rewards, _ = play(make(env=seen, form="potential", discount=0.9, weight=2.0), 6)
    values = np.concatenate([scores_of(seen.first[:1]), scores_of(seen.frames)])
    np.testing.assert_allclose(rewards, 2 * (0.9 * values[1:] - values[:-1]), rtol=1e-5)


def test_added_to_the_simulators_reward() -> None:
    rewards, infos = play(make(add=True, weight=0.5), 9)
    alone, _ = play(make(weight=0.5), 9)
    env_rewards = [info["env_reward"] for info in infos]
    np.testing.assert_allclose(rewards, alone + env_rewards, rtol=1e-5)


@pytest.mark.parametrize("scorer", [OfFrames, OfClips])
def test_at_the_end_only_the_last_step_is_paid(scorer: type[OfFrames]) -> None:
    seen, judge = Remembers(toy()), scorer()
    rewards, _ = play(make(judge, seen, form="end"), 12)
    assert np.flatnonzero(rewards).tolist() == [5, 11]
    np.testing.assert_allclose(rewards[[5, 11]], scores_of(seen.frames)[[5, 11]], rtol=1e-6)
    assert judge.batches == [judge.n_frames if scorer is OfClips else 1] * 2


def test_scorers_of_clips_pay_at_the_end_by_themselves() -> None:
    assert make(OfClips()).form == "end"
    with pytest.raises(ValueError, match="can only pay at the end"):
        make(OfClips(), form="step")


@pytest.mark.parametrize("pay", [{}, {"form": "potential"}, {"add": True}, {"form": "end"}])
def test_deferred_rewards_are_the_same(pay: dict[str, Any]) -> None:
    """Whatever the steps after which debts are collected."""
    expected, _ = play(make(**pay), 20)
    env, scorer = make(**pay), OfFrames()
    env.scorer, env.defers = scorer, True
    actions, got, paid = np.random.default_rng(0), [], []
    env.reset(seed=0)
    for step in range(20):
        _, reward, _, is_over, _ = env.step(actions.uniform(-1, 1, 2))
        paid.append(reward)
        if step in (3, 4, 13, 19):
            got += (np.array(paid[len(got) :]) + env.collect()).tolist()
        if is_over:
            env.reset()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    if pay.get("form") != "end":
        assert len(scorer.batches) < 10


def test_late_reward_says_what_an_episode_is_still_owed() -> None:
    expected, _ = play(make(), 6)
    env = make()
    env.defers = True
    rewards, infos = play(env, 6)
    assert np.flatnonzero(rewards).tolist() == [5]
    assert rewards.sum() + infos[-1]["late_reward"] == pytest.approx(expected.sum(), rel=1e-5)


def test_without_deferring_nothing_is_owed() -> None:
    env = make()
    _, infos = play(env, 6)
    assert infos[-1]["late_reward"] == pytest.approx(0.0) and len(env.collect()) == 0


@pytest.mark.parametrize("pay", [{"form": "potential"}, {"form": "end"}, {}])
def test_an_episode_resumes_in_the_middle(pay: dict[str, Any]) -> None:
    def made() -> ScoreReward:
        env = ScoreReward(SeededEpisodes(toy(9)), "reach", OfFrames(), pay)
        env.defers = True
        return env

    actions = np.random.default_rng(1).uniform(-1, 1, (9, 2))
    env = made()
    env.reset(seed=3)
    for action in actions[:5]:
        env.step(action)
    again = made()
    resume_episode(again, env.env.state_dict())  # type: ignore[attr-defined]
    again.load_state_dict(env.state_dict())
    ends = []
    for each in (env, again):
        last = [each.step(action) for action in actions[5:]][-1]
        ends.append((last[1], last[4]["late_reward"], *each.collect()))
    assert ends[0] == ends[1]


def test_a_broken_scorer_is_named() -> None:
    class Nan(OfFrames):
        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            return np.full(clips.shape[:2], np.nan, np.float32)

    env = make(Nan())
    env.reset(seed=0)
    with pytest.raises(FeedbackError, match="finite scores"):
        env.step(np.zeros(2))
    with pytest.raises(FeedbackError, match="call reset"):
        make().step(np.zeros(2))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'potential'"):
        make(form="potentiall")
    with pytest.raises(UnknownNameError, match="field of pay"):
        make(wieght=1)
    with pytest.raises(ValueError, match=r"discount must lie in \(0, 1\]"):
        make(discount=0.0)
    with pytest.raises(RenderingError, match="render_mode='rgb_array'"):
        make(env=ToyReach())
    with pytest.raises(ValueError, match="says how a scorer pays"):
        vlp_gym.wrap(toy(), "reach", labeler="oracle", pay={"form": "end"})
    with pytest.raises(ValueError, match=r"settings of a scorer \(alpha\), and labeler 'oracle'"):
        vlp_gym.wrap(toy(), "reach", labeler="oracle", scorer={"alpha": 0.5})
    with pytest.raises(UnknownNameError, match="did you mean 'clip'"):
        vlp_gym.wrap(toy(), "reach", reward="clipp")
    with pytest.raises(UnknownNameError, match="did you mean 'alpha'"):
        vlp_gym.wrap(toy(), "reach", reward="vlmrm", checkpoint="bundled", scorer={"alfa": 1})


def test_what_a_scorer_cannot_read_is_refused_when_the_env_is_made() -> None:
    class Picky(OfFrames):
        def check(self, task: Task) -> None:
            raise SettingError("pictures of the goal are missing")

    with pytest.raises(SettingError, match="pictures of the goal"):
        make(Picky())


BUNDLED: dict[str, Any] = {"reward": "clip", "checkpoint": "bundled", "device": "cpu"}


def test_gym_make_pays_by_a_scorer_and_its_spec_makes_it_again() -> None:
    env = gym.make("vlp/DoorClose", max_episode_steps=4, pay={"weight": 10.0}, **BUNDLED)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    scored = env.get_wrapper_attr("scorer")
    assert again.get_wrapper_attr("scorer") is scored  # one network for both
    assert scored.name == "clip:stand-in:vlp-compact"
    rewards = []
    for each in (env, again):
        each.reset(seed=0)
        each.action_space.seed(0)
        rewards.append([each.step(each.action_space.sample())[1] for _ in range(3)])
    assert rewards[0] == rewards[1] and len(set(rewards[0])) == 3
    assert all(abs(reward) <= 10 for reward in rewards[0])


@pytest.mark.parametrize("defers", [True, False])
def test_the_time_limit_of_an_id_is_an_end(defers: bool) -> None:
    """It stands around everything that `gym.make` is asked for."""
    arguments: dict[str, Any] = {"max_episode_steps": 3, **BUNDLED}
    env = gym.make("vlp/DoorClose", pay={"form": "end"}, **arguments)
    each = gym.make("vlp/DoorClose", **arguments)
    paid = []
    for one in (env, each):
        scored: Any = one
        while not isinstance(scored, ScoreReward):
            scored = scored.env
        scored.defers = defers
        one.reset(seed=0)
        one.action_space.seed(0)
        paid.append([one.step(one.action_space.sample()) for _ in range(3)])
    (*before, end), (*earlier, last) = ([step[1] for step in played] for played in paid)
    assert before == [0, 0] and end == pytest.approx(last) and last != 0
    assert (earlier == [0, 0]) == defers
    assert ["late_reward" in step[4] for step in paid[1]] == [False, False, True]
    assert (paid[1][-1][4]["late_reward"] != 0) == defers


def test_an_episode_that_is_reset_before_its_end_is_told_of(caplog: Any) -> None:
    env = make(env=ToyReach("rgb_array", None), form="end")
    play(env, 3)
    env.reset()
    assert "3 steps was reset before its end and is not paid" in caplog.text


def test_a_scorer_labels_by_name() -> None:
    feedback = {"session_every": 20, "queries_per_session": 3, "segment_length": 8}
    settings: dict[str, Any] = {"alpha": 0.5, "baseline": "the door", "n_frames": 2}
    env = gym.make(
        "vlp/DoorClose",
        labeler="vlmrm",
        checkpoint="bundled",
        scorer=settings,
        feedback=feedback,
        device="cpu",
    )
    env.reset(seed=0)
    for _ in range(20):
        env.step(env.action_space.sample())
    loop = env.get_wrapper_attr("loop")
    assert loop.table.column("labeler")[0] == "vlmrm:stand-in:vlp-compact"
    assert set(loop.table.column("label").tolist()) <= {
        0.0,
        0.5,
        1.0,
    }  # similarities are no log-odds
