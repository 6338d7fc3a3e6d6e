"""What episodes come to, and the alarm."""

import copy

import numpy as np
import pytest

from vlp_gym.feedback.outcomes import RECENT, Outcomes


def play(outcomes: Outcomes, learned: float, simulated: float, success: bool, env: int = 0) -> None:
    outcomes.step(learned / 2, simulated / 2, success, env)
    outcomes.step(learned / 2, simulated / 2, False, env)
    assert outcomes.end(env)


def test_returns_and_both_kinds_of_success_are_means_of_the_latest_episodes() -> None:
    outcomes = Outcomes()
    assert outcomes.means() == {}
    for _ in range(5):
        play(outcomes, 100.0, 100.0, False)
    for number in range(RECENT):
        play(outcomes, float(number), 2.0, number % 4 == 0)
    assert len(outcomes) == 5 + RECENT
    assert outcomes.means() == {
        "learned_return": 9.5,
        "env_return": 2.0,
        "success": 0.25,
        "success_at_end": 0.0,
    }


def test_envs_side_by_side_add_up_apart() -> None:
    outcomes = Outcomes(2)
    outcomes.step(1.0, 10.0, True, 0)
    outcomes.step(5.0, 50.0, False, 1)
    outcomes.end(1)
    outcomes.step(2.0, 20.0, True, 0)
    outcomes.end(0)
    assert outcomes.means() == {
        "learned_return": 4.0,
        "env_return": 40.0,
        "success": 0.5,
        "success_at_end": 0.5,
    }


def test_an_end_without_a_step_is_no_episode() -> None:
    outcomes = Outcomes()
    assert not outcomes.end()
    play(outcomes, 2.0, 2.0, False)
    assert not outcomes.end() and len(outcomes) == 1


def after(learned: float, simulated: float, success: bool) -> str | None:
    """Return what is said when a second block of episodes comes to this; the first came to about 10."""
    outcomes = Outcomes()
    for value in np.random.default_rng(0).normal(10, 1, RECENT):
        play(outcomes, value, 10.0, False)
    assert outcomes.hacking() is None
    for _ in range(RECENT):
        play(outcomes, learned, simulated, success)
    return outcomes.hacking()


def test_a_learned_return_that_rises_alone_is_said() -> None:
    said = after(30.0, 9.0, False)
    assert said is not None and "gaming the learned reward" in said and "0.00 to 0.00" in said


@pytest.mark.parametrize(
    ("learned", "simulated", "success"),
    [
        (30.0, 9.0, True),  # success rises, too
        (30.0, 20.0, False),  # on its way: the simulator is more content
        (10.0, 9.0, False),  # nothing rises
    ],
)
def test_progress_and_standing_still_are_no_alarm(
    learned: float, simulated: float, success: bool
) -> None:
    assert after(learned, simulated, success) is None


def test_success_everywhere_is_no_alarm() -> None:
    outcomes = Outcomes()
    for learned in (10.0, 30.0):
        for noise in range(RECENT):
            play(outcomes, learned + noise / 100, 5.0, True)
    assert outcomes.hacking() is None


def test_it_is_said_once_a_block() -> None:
    outcomes = Outcomes()
    said = []
    for number in range(3 * RECENT):
        play(outcomes, 10.0 + number, 9.0, False)
        said.append(outcomes.hacking() is not None)
    assert sum(said) == 2 and said[2 * RECENT - 1] and said[-1]


def test_save_load_continue_equals_uninterrupted() -> None:
    rng = np.random.default_rng(0)
    steps = [(*rng.normal(size=2).tolist(), bool(rng.random() < 0.2)) for _ in range(300)]
    whole, head, tail = Outcomes(2), Outcomes(2), Outcomes(2)

    def add(outcomes: Outcomes, number: int) -> None:
        outcomes.step(*steps[number], number % 2)
        if number % 7 == 0:
            outcomes.end(number % 2)

    for number in range(300):
        add(whole, number)
        if number < 151:
            add(head, number)
    tail.load_state_dict(copy.deepcopy(head.state_dict()))
    for number in range(151, 300):
        add(tail, number)
    assert tail.means() == whole.means() and len(tail) == len(whole)
