import pytest

from vlp_gym.errors import InstructionError, UnknownNameError
from vlp_gym.tasks.instructions import (
    LANGUAGES,
    MAX_WORDS,
    check_instruction,
    instructions,
)
from vlp_gym.tasks.metaworld import TASKS, find_task
from vlp_gym.tasks.sentences import WORDINGS
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
def test_a_task_has_forty_sentences_to_train_with(task: str) -> None:
    sentences = instructions(task)
    assert sentences[0] == TASKS[task].instruction
    assert len(set(sentences)) == len(sentences) >= 40


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_sentences_kept_for_testing_are_trained_on_under_no_task(language: str) -> None:
    trained_on = {sentence for task in TASKS for sentence in instructions(task)}
    for task in TASKS:
        held_out = instructions(task, language)
        assert len(held_out) >= 2
        assert trained_on.isdisjoint(held_out)


def test_training_meets_every_verb_and_every_noun() -> None:
    for task, wording in WORDINGS.items():
        for part in (*wording.structures, *wording.nouns):
            fixed = part.split("{noun}")
            assert any(all(piece in s for piece in fixed) for s in instructions(task))


def test_a_wanted_state_is_what_the_counterpart_does_not_want() -> None:
    with_state = {task: wording.state for task, wording in WORDINGS.items() if wording.state}
    assert len(with_state) >= 10
    for task, (wanted, unwanted) in with_state.items():
        noun = WORDINGS[task].nouns[0]
        assert {f"leave {noun} {wanted}", f"do not leave {noun} {unwanted}"} <= set(
            instructions(task)
        )
        counterpart = TASKS[task].counterpart
        if counterpart is not None:
            assert with_state[counterpart] == (unwanted, wanted)
            assert set(instructions(task)).isdisjoint(instructions(counterpart))


def test_an_incorrect_colour_is_not_the_objects() -> None:
    for task, wording in WORDINGS.items():
        assert all(wording.colour in s.split() for s in instructions(task, "correct_colour"))
        assert all(wording.colour not in s.split() for s in instructions(task, "incorrect_colour"))


def test_an_unknown_set_of_sentences_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="phrase"):
        instructions("DoorOpen", "phrases")


@pytest.mark.parametrize("task", TASKS)
def test_every_sentence_of_ours_is_one_that_we_accept(task: str) -> None:
    for language in LANGUAGES:
        for sentence in instructions(task, language):
            assert check_instruction(sentence) == sentence


@pytest.mark.parametrize("text", ["", "   ", "?!", "word " * (MAX_WORDS + 1)])
def test_what_is_no_sentence_is_refused(text: str) -> None:
    with pytest.raises(InstructionError):
        check_instruction(text)


def test_white_space_around_a_sentence_does_not_count() -> None:
    assert check_instruction("  close   the door\n") == "close the door"
