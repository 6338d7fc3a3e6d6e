"""The label store: what was asked once is never asked again."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.helpers import TASK, BrightnessScorer, DotScene, make_episode
from vlp_gym.errors import CheckpointError
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.labelers.store import TABLES, LabelStore, Question, StoreConfig, export_store
from vlp_gym.labelers.stored import StoredLabeler
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene
from vlp_gym.types import Labels, Pair, Segment, Status, Task


class Counting(BrightnessScorer):
    """Counts the clips that it scores, and remembers how many at once."""

    def __init__(self, name: str = "brightness") -> None:
        self.name, self.batches = name, list[int]()

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        self.batches.append(len(clips))
        return super().__call__(clips, task)


class NamedScene(DotScene):
    identity = "dots"


def make_pairs(seed: int = 0, n_pairs: int = 12, task: Task = TASK) -> list[Pair]:
    rng = np.random.default_rng(seed)
    episode = make_episode(rng, steps=60)
    starts = rng.permutation(50)[: 2 * n_pairs].tolist()
    cuts = [Segment(episode, start, 10) for start in starts]
    return [Pair(a, b, task) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]


def labeler(path: Path, **settings: Any) -> tuple[ScoreLabeler, Counting]:
    scorer = settings.pop("scorer", Counting())
    return ScoreLabeler(scorer, NamedScene(), store=LabelStore(path), **settings), scorer


def test_nothing_is_scored_twice_within_a_run_or_across_runs(tmp_path: Path) -> None:
    first, counting = labeler(tmp_path / "scores.sqlite")
    pairs = make_pairs()
    labels = first(pairs)
    assert sum(counting.batches) == 24
    again = first(pairs[::-1])
    np.testing.assert_array_equal(again.value[::-1], labels.value)
    other, other_counting = labeler(tmp_path / "scores.sqlite")  # another run
    np.testing.assert_array_equal(other(pairs).value, labels.value)
    assert sum(counting.batches) == 24 and not other_counting.batches
    assert other.store is not None and (other.store.n_found, other.store.n_missing) == (24, 0)


def test_labels_are_those_without_a_store_and_carry_their_addresses(tmp_path: Path) -> None:
    pairs = make_pairs()
    plain = ScoreLabeler(BrightnessScorer(), NamedScene())(pairs)
    stored, _ = labeler(tmp_path / "scores.sqlite")
    labels = stored(pairs)
    np.testing.assert_array_equal(labels.value, plain.value)
    assert len(set(labels.extra["first_address"]) | set(labels.extra["second_address"])) == 24


@pytest.mark.parametrize("differs", ["scorer", "instruction", "scene", "frames", "states"])
def test_what_differs_is_scored_anew(tmp_path: Path, differs: str) -> None:
    pairs = make_pairs()
    labeler(tmp_path / "scores.sqlite")[0](pairs)
    scorer, scene = Counting(), NamedScene()
    if differs == "scorer":
        scorer.name = "brightness:other-weights"
    if differs == "scene":
        scene.identity = "dots from the left"
    if differs == "frames":
        scorer.n_frames = 3
    if differs == "instruction":
        pairs = [replace(pair, task=Task("reach the blue dot")) for pair in pairs]
    if differs == "states":
        pairs = make_pairs(seed=1)
    ScoreLabeler(scorer, scene, store=LabelStore(tmp_path / "scores.sqlite"))(pairs)
    assert sum(scorer.batches) == 24


class Sized(Counting):
    """Says by its identity, not its name, what its scores are multiplied by."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size, self.identity = size, f"brightness {{size: {size}}}"

    def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
        return super().__call__(clips, task) * np.float32(self.size)


def test_two_settings_of_one_scorer_share_no_score(tmp_path: Path) -> None:
    pairs = make_pairs()
    for size in (1.0, 2.0, 1.0):
        sized, scorer = labeler(tmp_path / "scores.sqlite", scorer=Sized(size))
        plain = ScoreLabeler(Sized(size), NamedScene())(pairs)
        np.testing.assert_array_equal(sized(pairs).extra["first_score"], plain.extra["first_score"])
    assert not scorer.batches  # the first one again, of which all is known
    assert sized.store is not None and len(sized.store) == 48
    export_store(StoreConfig(tmp_path / "scores.sqlite"))
    table = pq.read_table(tmp_path / "scores-scores.parquet")
    assert set(table["scorer"].to_pylist()) == {Sized(1.0).identity, Sized(2.0).identity}


@pytest.mark.parametrize("differs", ["baseline", "goal_image", "first_frame", "reduce", "frames"])
def test_what_a_task_or_the_frames_are_besides_is_scored_anew(tmp_path: Path, differs: str) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    told = {"baseline": "a dot", "goal_image": picture, "first_frame": picture}
    pairs = make_pairs(task=Task(TASK.instruction, **told))  # type: ignore[arg-type]
    labeler(tmp_path / "scores.sqlite")[0](pairs)
    scorer, settings = Counting(), {}
    if differs == "reduce":
        settings = {"reduce": "last"}
    elif differs == "frames":
        scorer.keeps_last = False  # type: ignore[attr-defined]
    else:
        other = "two dots" if differs == "baseline" else picture + 1
        pairs = [replace(pair, task=replace(pair.task, **{differs: other})) for pair in pairs]
    labeler(tmp_path / "scores.sqlite", scorer=scorer, **settings)[0](pairs)
    assert sum(scorer.batches) == 24


def test_labels_are_kept_by_all_that_decides_them(tmp_path: Path) -> None:
    pairs = make_pairs()
    settings: list[dict[str, Any]] = [{}, {"soft": False}, {"temperature": 9.0}, {"reduce": "last"}]
    for size in (1.0, 2.0):
        for each in settings:
            asked = ScoreLabeler(Sized(size), NamedScene(), **each)
            stored = StoredLabeler(asked, LabelStore(tmp_path / "labels.sqlite"))
            expected = ScoreLabeler(Sized(size), NamedScene(), **each)(pairs)
            np.testing.assert_array_equal(stored(pairs).value, expected.value)
    assert len(stored.store) == 2 * len(settings) * len(pairs)


def test_batches_do_not_depend_on_what_a_killed_session_left(tmp_path: Path) -> None:
    """Rounding may depend on the batch: a run that goes on must score in the same ones."""
    old, pairs = make_pairs(n_pairs=3), make_pairs(n_pairs=12)
    whole, whole_scorer = labeler(tmp_path / "whole.sqlite", batch=5)
    killed, killed_scorer = labeler(tmp_path / "killed.sqlite", batch=5)
    for each in (whole, killed):
        each(old)
    whole_scorer.batches.clear()
    whole(pairs)

    class Killed(BaseException):
        pass

    n_drawn = 0

    def dies(segments: Any, task: Task) -> Any:
        nonlocal n_drawn
        n_drawn += 1
        if n_drawn == 3:
            raise Killed
        return score(segments, task)

    score = killed._score
    killed._score = dies  # type: ignore[method-assign, assignment]
    killed_scorer.batches.clear()
    with pytest.raises(Killed):
        killed(pairs)
    killed._score = score  # type: ignore[method-assign]
    killed(pairs)
    assert killed_scorer.batches == whole_scorer.batches


def test_scores_that_are_not_numbers_are_not_kept(tmp_path: Path) -> None:
    class Broken(Counting):
        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            super().__call__(clips, task)
            return np.full((len(clips), 1), np.nan, np.float32)

    stored, _ = labeler(tmp_path / "scores.sqlite", scorer=Broken())
    assert not stored(make_pairs()).labelled.any()
    assert stored.store is not None and len(stored.store) == 0


def test_a_store_is_exported_with_every_scores_provenance(tmp_path: Path) -> None:
    labels = labeler(tmp_path / "scores.sqlite")[0](make_pairs())
    told = export_store(StoreConfig(tmp_path / "scores.sqlite"))
    table = pq.read_table(tmp_path / "scores-scores.parquet")
    assert told[str(tmp_path / "scores-scores.parquet")] == table.num_rows == 24
    assert table.column_names == list(TABLES["scores"])
    assert set(table["scorer"].to_pylist()) == {"brightness"}
    assert set(table["instruction"].to_pylist()) == {TASK.instruction}
    assert set(table["frames"].to_pylist()) == {"2 uniform of 10"}
    assert min(table["seconds"].to_pylist()) > 0
    score_of = dict(zip(table["address"].to_pylist(), table["score"].to_pylist(), strict=True))
    named = [score_of[address] for address in labels.extra["first_address"]]
    np.testing.assert_array_equal(named, labels.extra["first_score"])


def test_a_missing_store_and_another_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no label store"):
        export_store(StoreConfig(tmp_path / "scores.sqlite"))
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(CheckpointError, match="cannot be used as a label store"):
        len(LabelStore(tmp_path / "text.sqlite"))


def test_a_scene_that_does_not_say_what_it_draws_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="identity"):
        ScoreLabeler(BrightnessScorer(), DotScene(), store=LabelStore(tmp_path / "s.sqlite"))


def test_scenes_of_meta_world_are_told_apart_but_not_by_where_things_are() -> None:
    env = make_sawyer("DoorClose")
    env.seed(0)
    scene = metaworld_scene(env, size_px=64)
    env.reset()
    assert metaworld_scene(env, size_px=64).identity == scene.identity
    others = [
        metaworld_scene(make_sawyer("DrawerClose"), size_px=64),
        metaworld_scene(env, "corner3", size_px=64),
        metaworld_scene(env, size_px=64, preset="draft"),
    ]
    assert len({each.identity for each in [scene, *others]}) == 4


def test_two_processes_share_a_store_and_a_kill_leaves_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    code = (
        "import sys; from vlp_gym.labelers.store import Question, LabelStore\n"
        "store = LabelStore(sys.argv[1])\n"
        "for n in range(10**6):\n"
        "    asked = [Question('a', 'b', 'c', 'd', f'{n} {each}') for each in range(7)]\n"
        "    store.add_scores(asked, [1.0] * 7, 1.0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    store = LabelStore(path)
    give_up = time.monotonic() + 60
    number = 0
    while len(store) - number < 50 and time.monotonic() < give_up:
        store.add_scores([Question("mine", "b", "c", "d", str(number))], [2.0], 1.0)
        number += 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    theirs = len(store) - number
    assert theirs > 0 and theirs % 7 == 0 and number > 0


class Person:
    """Prefers the brighter segment, abstains where both are alike, and is counted."""

    name = "person"

    def __init__(self, patience: int = 10**6) -> None:
        self.asked: list[int] = []
        self.patience = patience

    def __call__(self, pairs: list[Pair]) -> Labels:
        if sum(self.asked) + len(pairs) > self.patience:
            raise KeyboardInterrupt
        self.asked.append(len(pairs))
        level = [
            [each.episode.snapshots[each.steps].mean() for each in (p.first, p.second)]
            for p in pairs
        ]
        gap = np.array(level)[:, 1] - np.array(level)[:, 0]
        alike = np.abs(gap) < 20
        value = np.where(alike, np.nan, gap > 0).astype(np.float32)
        status = np.where(alike, Status.ABSTAINED, Status.LABELLED).astype(np.int8)
        return Labels(value, status, {"reason": np.array([f"{each:.1f}" for each in gap])})


def assert_same_labels(first: Labels, second: Labels) -> None:
    np.testing.assert_array_equal(first.value, second.value)
    np.testing.assert_array_equal(first.status, second.status)
    assert list(first.extra) == list(second.extra)
    for name in first.extra:
        np.testing.assert_array_equal(first.extra[name], second.extra[name])


def test_labels_of_a_person_are_kept_with_abstentions_and_reasons(tmp_path: Path) -> None:
    pairs, person = make_pairs(), Person()
    once = StoredLabeler(person, LabelStore(tmp_path / "labels.sqlite"))
    labels = once(pairs)
    assert_same_labels(labels, Person()(pairs))
    assert (labels.status == Status.ABSTAINED).any() and labels.labelled.any()
    nobody = StoredLabeler(Person(patience=0), LabelStore(tmp_path / "labels.sqlite"))
    assert_same_labels(nobody(pairs[::-1]), Person()(pairs[::-1]))
    swapped = [Pair(pair.second, pair.first, pair.task) for pair in pairs[:2]]
    once(swapped)  # another question
    assert sum(person.asked) == 14
    export_store(StoreConfig(tmp_path / "labels.sqlite"))
    table = pq.read_table(tmp_path / "labels-labels.parquet")
    assert table.num_rows == 14 and set(table["labeler"].to_pylist()) == {"person"}
    assert table["value"].null_count == sum(
        s == Status.ABSTAINED for s in table["status"].to_pylist()
    )


def test_an_interrupted_session_asks_only_the_rest(tmp_path: Path) -> None:
    pairs, tired = make_pairs(), Person(patience=9)
    with pytest.raises(KeyboardInterrupt):
        StoredLabeler(tired, LabelStore(tmp_path / "labels.sqlite"), batch=4)(pairs)
    rested = Person()
    labels = StoredLabeler(rested, LabelStore(tmp_path / "labels.sqlite"), batch=4)(pairs)
    assert tired.asked == [4, 4] and rested.asked == [4]
    assert_same_labels(labels, Person()(pairs))


def test_failures_are_asked_again(tmp_path: Path) -> None:
    def fails(pairs: list[Pair]) -> Labels:
        nothing = np.full(len(pairs), np.nan, np.float32)
        return Labels(nothing, np.full(len(pairs), Status.FAILED, np.int8))

    store = LabelStore(tmp_path / "labels.sqlite")
    assert not StoredLabeler(fails, store)(make_pairs()).labelled.any() and len(store) == 0


def test_labelers_that_draw_random_numbers_are_not_remembered(tmp_path: Path) -> None:
    from vlp_gym.labelers.teacher import Teacher

    with pytest.raises(ValueError, match="leave the store out"):
        StoredLabeler(Teacher.of("noisy"), LabelStore(tmp_path / "labels.sqlite"))
