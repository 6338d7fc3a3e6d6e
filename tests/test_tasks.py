import pytest

from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.tasks.instructions import (
    MAX_WORDS,
    check_instruction,
    held_out_instructions,
    training_instructions,
)
from vlp_gym.tasks.metaworld import TASKS, find_task
from vlp_gym.tasks.splits import SPLITS, find_split


def test_the_table_is_metaworlds() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {task.env_name for task in TASKS.values()} == set(ALL_V3_ENVIRONMENTS)
    assert len(TASKS) == 50


@pytest.mark.parametrize("name", ["ButtonPressTopdownWall", "button-press-topdown-wall"])
def test_a_task_is_found_under_each_of_its_spellings(name: str) -> None:
    assert find_task(name) is find_task("button-press-topdown-wall-v3")


def test_an_unknown_task_is_answered_with_the_closest_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ButtonPress'"):
        find_task("ButonPress")


def test_a_task_undoes_the_task_that_undoes_it() -> None:
    for task in TASKS.values():
        if task.counterpart is not None:
            assert TASKS[task.counterpart].counterpart == task.name


def test_the_papers_split_tests_five_unseen_tasks() -> None:
    split = SPLITS["paper"]
    assert len(split.train) == 45
    assert set(split.train).isdisjoint(split.test)
    assert set(split.train) | set(split.test) == set(TASKS)


def test_an_unknown_split_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="paper"):
        find_split("papr")


@pytest.mark.parametrize("task", TASKS)
def test_sentences_kept_for_testing_are_not_trained_on(task: str) -> None:
    training, held_out = training_instructions(task), held_out_instructions(task)
    assert training[0] == TASKS[task].instruction
    assert held_out
    assert set(training).isdisjoint(held_out)


@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_of_ours_is_one_that_we_accept(task: str) -> None:
    for sentence in training_instructions(task) + held_out_instructions(task):
        assert check_instruction(sentence) == sentence


@pytest.mark.parametrize("text", ["", "   ", "?!", "word " * (MAX_WORDS + 1)])
def test_what_is_no_sentence_is_refused(text: str) -> None:
    with pytest.raises(InstructionError):
        check_instruction(text)


def test_white_space_around_a_sentence_does_not_count() -> None:
    assert check_instruction("  close   the door\n") == "close the door"
