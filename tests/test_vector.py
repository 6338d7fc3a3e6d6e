"""Many envs, one feedback loop: Gymnasium vectors."""

import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

import vlp_gym
from tests.helpers import FakeScorer, ToyReach
from vlp_gym.envs.vector import make_metaworld_vector
from vlp_gym.envs.vlmrm import CartPole
from vlp_gym.errors import FeedbackError, InstructionError, UnknownNameError
from vlp_gym.feedback.loop import FeedbackLoop
from vlp_gym.wrappers.score import EpisodeEnd
from vlp_gym.wrappers.vector import PreferenceVector

FEEDBACK: dict[str, Any] = {
    "budget": 24,
    "queries_per_session": 8,
    "session_every": 45,
    "segment_length": 4,
    "ensemble": {"width": 16, "depth": 2},
    "fit": {"max_epochs": 3},
}


def make(
    n_envs: int = 3,
    instruction: Any = "reach the red dot",
    max_steps: tuple[int, ...] = (7, 9, 11),
    **settings: Any,
) -> PreferenceVector:
    makers = [partial(ToyReach, max_steps=max_steps[env % 3]) for env in range(n_envs)]
    given = {"labeler": "oracle", "feedback": FEEDBACK, "device": "cpu", **settings}
    return vlp_gym.wrap_vector(makers, instruction, **given)


def play(env: PreferenceVector, steps: int, first: int = 0) -> list[list[float]]:
    """Return what every env was paid at each step under fixed actions; resets by hand where that is the mode."""
    rng = np.random.default_rng(5)
    if not first:
        env.reset(seed=3)
    paid = []
    for step in range(steps):
        actions = rng.uniform(-1, 1, (env.num_envs, 2)).astype(np.float32)
        if step < first:
            continue
        _, reward, terminated, truncated, infos = env.step(actions)
        assert set(infos) >= {"env_reward", "is_success"} and not any("moment" in k for k in infos)
        paid.append(reward.tolist())
        over = terminated | truncated
        if env.metadata["autoreset_mode"] == gym.vector.AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
    return paid


def episodes_of(loop: FeedbackLoop, env: int) -> list[NDArray[Any]]:
    return [each.obs for each in loop.recorder.episodes() if each.env == env]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_episodes_are_recorded_whole_in_every_autoreset_mode(mode: str) -> None:
    env = make(autoreset_mode=mode)
    play(env, 40)
    for number, length in enumerate((7, 9, 11)):
        recorded = episodes_of(env.loop, number)
        assert [len(each) for each in recorded[:-1]] == [length] * (len(recorded) - 1)
        for episode in recorded:
            # Goals differ between episodes, and never within one: no segment straddles two.
            assert (episode[:, 2:] == episode[0, 2:]).all()
    whole = [len(each) == (7, 9, 11)[each.env] for each in env.loop.recorder.episodes()]
    assert len(env.shared.outcomes) == sum(whole)
    goals = {tuple(each.obs[0, 2:]) for each in env.loop.recorder.episodes()}
    assert len(goals) == len(env.loop.recorder.episodes())


def test_both_autoreset_modes_record_the_same_worlds() -> None:
    envs = [make(autoreset_mode=mode) for mode in ("NextStep", "SameStep")]
    for env in envs:
        env.reset(seed=3)
        for _ in range(30):
            env.step(np.full((3, 2), 0.1, np.float32))
    for number in range(3):
        for first, second in zip(*(episodes_of(env.loop, number) for env in envs), strict=False):
            n_steps = min(len(first), len(second))
            np.testing.assert_array_equal(first[:n_steps], second[:n_steps])


def test_the_observation_of_a_step_is_that_before_its_action() -> None:
    env = make(1, max_steps=(50, 50, 50))
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.ones((1, 2), np.float32))
    env.step(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(episodes_of(env.loop, 0)[0], [first[0], second[0]])


def test_sessions_count_the_steps_of_all_envs_and_pay_after_themselves() -> None:
    env = make(autoreset_mode="SameStep")
    paid = np.array(play(env, 20))
    # 3 steps at a time: the session of step 45 comes after the 15th call, and pays it.
    assert [record["step"] for record in env.loop.history] == [45]
    assert not paid[:14].any() and paid[14:].all()


def test_a_step_that_only_resets_is_paid_nothing_and_recorded_nowhere() -> None:
    env = make(1, max_steps=(7, 7, 7), feedback={**FEEDBACK, "session_every": 10})
    paid = np.array(play(env, 30))[:, 0]
    resets = np.arange(30) % 8 == 7
    assert not paid[resets].any() and paid[~resets][12:].all()
    assert env.loop.steps == 30 - resets.sum()


def test_the_simulators_reward_and_success_are_told_for_every_env() -> None:
    env = make(autoreset_mode="SameStep")
    bare = gym.vector.SyncVectorEnv(
        [partial(vlp_gym.wrap, ToyReach(max_steps=7), "reach", labeler=None, reward="env")]
    )
    env.reset(seed=0)
    bare.reset(seed=0)
    for _ in range(7):
        actions = np.full((3, 2), 0.3, np.float32)
        *_, infos = env.step(actions)
        _, rewards, *_ = bare.step(actions[:1])
        assert infos["env_reward"][0] == rewards[0]
        assert infos["is_success"].shape == (3,) and infos["is_success"].dtype == bool


def test_async_is_sync() -> None:
    both = [make(vector_strategy=strategy) for strategy in ("sync", "async")]
    paid = [play(env, 40) for env in both]
    for env in both:
        env.close()
    assert paid[0] == paid[1] and any(map(any, paid[0]))


@pytest.mark.parametrize("stop", [8, 15, 26])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_stop_save_load_continue_equals_uninterrupted(stop: int, mode: str) -> None:
    """Also right after episodes ended, before the step that resets them."""
    whole, stopped, resumed = (make(autoreset_mode=mode) for _ in range(3))
    paid = play(whole, 40)
    head = play(stopped, stop)
    obs = resumed.load_state_dict(stopped.state_dict())
    assert obs.shape == (3, 4)
    assert head + play(resumed, 40, first=stop) == paid


def test_different_tasks_share_a_loop_and_are_not_mixed_up() -> None:
    sentences = ["reach the red dot", "touch the dot", "reach the red dot"]
    env = make(3, sentences)
    play(env, 40)
    table = env.loop.table
    task_of = {each.number: each.env == 1 for each in env.loop.recorder.episodes()}
    for first, second, said in zip(
        table.column("first_episode"),
        table.column("second_episode"),
        table.column("instruction"),
        strict=True,
    ):
        assert task_of[first] == task_of[second] == (said == "touch the dot")
    assert set(table.column("instruction")) == set(sentences)
    # The reward learner sees which task a step is of.
    marks = np.array([each.obs[0, 4:] for each in env.loop.recorder.episodes()])
    assert marks.shape[1] == 2 and (marks.sum(1) == 1).all()
    obs, action = np.zeros((1, 4), np.float32), np.zeros((1, 2), np.float32)
    rows = [env.shared.stored(obs, action, number) for number in range(3)]
    paid = [float(env.loop.rewards(*row)[0]) for row in rows]
    assert paid[0] == paid[2] != paid[1]


def test_the_preference_model_looks_at_every_env_through_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vlp_gym.scorers.load_scorer", lambda *_, **__: FakeScorer())
    makers = [partial(ToyReach, "rgb_array", 9) for _ in range(2)]
    settings: dict[str, Any] = {"feedback": FEEDBACK, "device": "cpu", "vector_strategy": "async"}
    env = vlp_gym.wrap_vector(makers, "reach the red dot", **settings)
    play(env, 30)
    env.close()
    record = env.loop.history[0]
    assert record["labelled"] == 8 and record["label_accuracy"] > 0.7


def test_the_ids_make_vectors_with_one_loop() -> None:
    schedule = {**FEEDBACK, "segment_length": 5, "session_every": 40}
    env: Any = gym.make_vec(
        "vlp/DoorClose",
        num_envs=2,
        labeler="oracle",
        feedback=schedule,
        max_episode_steps=15,
        task=["DoorClose", "DrawerClose"],
    )
    obs, _ = env.reset(seed=0)
    assert obs.shape == (2, 39) and not np.array_equal(obs[0], obs[1])
    for _ in range(22):
        _, reward, *_ = env.step(env.action_space.sample())
    assert env.loop.history[0]["queries"] == 8 and reward.all()
    said = set(env.loop.table.column("instruction"))
    assert said <= {vlp_gym.TASKS[name].instruction for name in ("DoorClose", "DrawerClose")}
    env.close()


def test_an_id_that_makes_vectors_still_knows_its_last_step() -> None:
    one = gym.make("vlp/DoorClose", labeler="oracle")
    assert isinstance(one, EpisodeEnd) and one.spec is not None
    assert [each.name for each in one.spec.additional_wrappers] == ["EpisodeEnd"]
    again = gym.make(EnvSpec.from_json(one.spec.to_json()))
    assert isinstance(again, EpisodeEnd) and not isinstance(again.env, EpisodeEnd)
    own = gym.make_vec("vlp/DoorClose", 1, "sync", labeler="oracle", max_episode_steps=60)
    assert own.spec is not None and own.spec.kwargs["max_episode_steps"] == 60
    own.reset(seed=0)
    for env in (one, again, own):
        env.close()


def test_workers_load_no_torch() -> None:
    code = (
        "import sys\n"
        "from functools import partial\n"
        "from tests.helpers import ToyReach\n"
        "from vlp_gym.wrappers.vector import Worker\n"
        "from vlp_gym.envs.vector import make_worker\n"
        "for make in (ToyReach, partial(make_worker, 'DoorClose', 50)):\n"
        "    env = Worker(make, 0)()\n"
        "    env.reset(seed=0); env.step(env.action_space.sample())\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Suicidal(ToyReach):
    """Its process is killed at the third step."""

    def step(self, action: Any) -> Any:
        import multiprocessing
        import os
        import signal

        if self._n_steps == 2 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


@pytest.mark.filterwarnings("ignore:.*waiting for a pending call")
def test_a_dead_worker_is_named() -> None:
    settings: dict[str, Any] = {"labeler": "oracle", "feedback": FEEDBACK, "device": "cpu"}
    env = vlp_gym.wrap_vector([ToyReach, Suicidal], "reach", vector_strategy="async", **settings)
    env.reset(seed=0)
    with pytest.raises(FeedbackError, match="worker process of the vector died"):
        for _ in range(4):
            env.step(np.zeros((2, 2), np.float32))
    assert env.loop.steps == 4  # what came before is on record
    env.close(terminate=True)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"vector_strategy": "asink"}, UnknownNameError, "async"),
        ({"autoreset_mode": "never"}, UnknownNameError, "NextStep"),
        ({"instruction": ["one", "two"]}, ValueError, "one for each env; got 2"),
        ({"labeler": "orcale"}, UnknownNameError, "oracle"),
    ],
)
def test_wrong_settings_say_what_is_right(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**settings)


@pytest.mark.parametrize("world", ["drawn by itself", "drawn from states", "MuJoCo"])
def test_a_scorer_labels_a_vector_from_what_the_workers_send(world: str) -> None:
    """Pictures in the size of the env, states of a world with a scene of its own, and states of a simulator."""
    settings: dict[str, Any] = {
        "labeler": "vlmrm",
        "checkpoint": "bundled",
        "scorer": {"alpha": 0.5, "baseline": "nothing", "n_frames": 2},
        "feedback": {**FEEDBACK, "queries_per_session": 4, "session_every": 12},
        "device": "cpu",
    }
    if world == "MuJoCo":
        env: PreferenceVector = make_metaworld_vector(2, "DoorClose", 20, **settings)
    else:
        toy = world == "drawn by itself"
        maker = partial(ToyReach, "rgb_array") if toy else partial(CartPole)
        env = vlp_gym.wrap_vector([maker, maker], "reach the dot", **settings)
    env.reset(seed=0)
    for _ in range(6):
        env.step(env.action_space.sample())
    table = env.loop.table
    assert len(table) == 4 and set(table.column("labeler")) == {"vlmrm:stand-in:vlp-compact"}
    assert set(table.column("label").tolist()) <= {0.0, 0.5, 1.0}
    assert np.isfinite(table.column("first_score")).all()
    env.close()


def test_a_vector_refuses_a_task_that_its_scorer_cannot_read() -> None:
    with pytest.raises(InstructionError, match="target and baseline are both 'reach the red dot'"):
        vlp_gym.wrap_vector(
            [partial(ToyReach, "rgb_array")],
            "reach the red dot",
            labeler="vlmrm",
            checkpoint="bundled",
            scorer={"baseline": "reach the red dot"},
            feedback=FEEDBACK,
            device="cpu",
        )
