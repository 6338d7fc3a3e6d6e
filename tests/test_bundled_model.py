"""What the bundled preference model says of scenes and policies that it was not trained on."""

import logging
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from tests.helpers import DotScene
from vlp_gym.errors import SettingError
from vlp_gym.labelers.score import ScoreLabeler
from vlp_gym.models.checkpoint import Checkpoint
from vlp_gym.scorers import load_scorer
from vlp_gym.scorers.vlp import OPEN_MARGIN, VLPScorer
from vlp_gym.tasks.instructions import instructions
from vlp_gym.tasks.metaworld import TASKS
from vlp_gym.tasks.splits import find_split
from vlp_gym.training.collect import collect_task
from vlp_gym.training.features import TaskClips, task_clips
from vlp_gym.training.frames import FrameGrid
from vlp_gym.training.scoring import score_clips
from vlp_gym.types import Task

N_EACH = 3
SEED = 77


@pytest.fixture(scope="module")
def bundled() -> Checkpoint:
    return Checkpoint.from_pretrained()


@pytest.fixture(scope="module")
def shown(bundled: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TaskClips]:
    """Whole trajectories of experts and of chance, in this order."""
    cache: Path = tmp_path_factory.mktemp("cache")
    grid = FrameGrid(bundled.frame_stride)
    model = bundled.model

    def clips_of(name: str) -> TaskClips:
        data = collect_task(name, {"expert": N_EACH, "random": N_EACH}, 150, SEED)
        return task_clips(data, model.encoders, bundled.view, grid, model.config.n_frames, cache)

    return {name: clips_of(name) for name in ("DoorClose", "DrawerClose")}


def whole(
    bundled: Checkpoint, task: TaskClips, sentence: str
) -> tuple[Float[np.ndarray, " experts"], Float[np.ndarray, " others"]]:
    rows = np.flatnonzero(task.clips.whole)
    scores = score_clips(bundled.model, task, rows, [sentence])[0]
    expert = task.clips.behaviour[rows] == "expert"
    return scores[expert], scores[~expert]


@pytest.mark.parametrize(("name", "thing"), [("DoorClose", "door"), ("DrawerClose", "drawer")])
def test_the_opposite_sentence_turns_the_preference_round(
    bundled: Checkpoint, shown: dict[str, TaskClips], name: str, thing: str
) -> None:
    expert, other = whole(bundled, shown[name], f"close the {thing}")
    assert expert.min() > np.median(other)
    expert, other = whole(bundled, shown[name], f"open the {thing}")
    assert expert.max() < np.median(other)


def test_what_another_task_shows_loses_and_lies_close_together(
    bundled: Checkpoint, shown: dict[str, TaskClips]
) -> None:
    own = np.concatenate(whole(bundled, shown["DoorClose"], "close the door"))
    foreign = np.concatenate(whole(bundled, shown["DrawerClose"], "close the door"))
    assert foreign.max() < own.min()
    assert np.ptp(foreign) < 0.15 * np.ptp(own)


def test_a_margin_opens_and_closes_the_match_and_never_orders_clips() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (6, 4, 128, 128, 3), np.uint8)
    shut, wide = (load_scorer("vlp", device="cpu", match_margin=by) for by in (-30, 30))
    closed, opened = (each(clips, Task("close the door")) for each in (shut, wide))
    floor = Checkpoint.from_pretrained().model.config.match_floor
    np.testing.assert_allclose(closed, floor * opened, rtol=1e-4)
    assert len(np.unique(opened)) == len(opened)


def test_scores_of_another_margin_are_kept_apart() -> None:
    model, other = load_scorer("vlp"), load_scorer("vlp", match_margin=3)
    assert model.name == other.name
    assert model.identity != other.identity


def test_labels_are_of_one_scene_and_ask_for_no_match_unless_told_to() -> None:
    plain = load_scorer("vlp", device="cpu")
    opened = ScoreLabeler(plain, DotScene()).scorer
    assert opened.identity == load_scorer("vlp", match_margin=OPEN_MARGIN).identity
    assert opened.of_one_scene() is opened
    named = load_scorer("vlp", device="cpu", match_margin=-30)
    assert ScoreLabeler(named, DotScene()).scorer is named
    # A scene that the sentence is not about: the model itself gives next to nothing for it, a labeler orders it.
    clips = np.random.default_rng(0).integers(0, 256, (6, 4, 128, 128, 3), np.uint8)
    task = Task("close the door")
    before = plain(clips, task)
    assert np.all(opened(clips, task) > before)
    np.testing.assert_array_equal(
        plain(clips, task), before
    )  # whoever opens it leaves the other as it was


def test_a_margin_that_is_no_number_is_refused() -> None:
    with pytest.raises(SettingError, match="match_margin is a finite number"):
        load_scorer("vlp", match_margin=float("nan"))


def test_words_that_training_did_not_have_are_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = VLPScorer.load(device="cpu")
    with caplog.at_level(logging.WARNING):
        for sentence in (
            "open the window",
            "press the RED button",
            "let air in through the window",
        ):
            for _ in range(2):
                scorer.check(Task(sentence))
    assert [record.getMessage().split(", and may read")[0] for record in caplog.records] == [
        "the preference model was not trained with 'let', 'air'"
    ]


def test_the_default_sentence_of_every_task_is_in_known_words() -> None:
    scorer = VLPScorer.load(device="cpu")
    assert not [name for name in TASKS if scorer.unknown_words(instructions(name)[0])]
    trained = find_split("paper").train
    assert not any(scorer.unknown_words(each) for name in trained for each in instructions(name))
    assert scorer.unknown_words("mach bitte die Schublade zu")[:2] == ["mach", "bitte"]
