"""Run folders: whole files after a kill, configs that come back as they went."""

import doctest
import errno
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from agents import evaluation, run
from agents.evaluation import episode_seeds
from benchmarks import kept_runs
from tests.other_process import another_process_in
from vlp_gym.errors import BusyRunError
from vlp_gym.video import captioned, write_video


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    folder: Path | None = None


@pytest.mark.parametrize("folder", [None, Path("somewhere")])
def test_a_config_survives_the_disk(tmp_path: Path, folder: Path | None) -> None:
    config = Outer("a", Inner((3,)), folder)
    run.write_config(tmp_path, config)
    assert run.read_config(tmp_path, Outer) == config


def test_a_config_of_another_version_names_what_is_unknown() -> None:
    with pytest.raises(ValueError, match="Outer has no colour"):
        run.config_of(Outer, {"name": "a", "colour": "red"})


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        run.read_config(tmp_path, Outer)


def test_a_second_run_does_not_overwrite_the_first(tmp_path: Path) -> None:
    run.write_config(run.new_run_folder(tmp_path, "a run"), Outer("a"))
    with pytest.raises(FileExistsError, match="--resume"):
        run.new_run_folder(tmp_path, "a run")


def test_a_folder_is_of_one_process_until_that_dies(tmp_path: Path) -> None:
    with another_process_in(tmp_path):
        for begin in (run.hold, lambda folder: run.new_run_folder(folder, "a run")):
            with pytest.raises(BusyRunError, match="another process is at work in"):
                begin(tmp_path)
    for _ in range(2):
        run.hold(tmp_path)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run.fcntl, "flock", refuse)
    run.hold(tmp_path)
    assert "cannot be locked (No locks available)" in caplog.text


def test_a_benchmark_leaves_what_another_process_has_begun(tmp_path: Path) -> None:
    (tmp_path / "begun").touch()
    with another_process_in(tmp_path), pytest.raises(BusyRunError):
        kept_runs.finished(Outer("a"), tmp_path, pytest.fail, pytest.fail, lambda config: config)
    assert (tmp_path / "begun").exists()


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (5, 10_000):
        run.save_checkpoint(tmp_path, step, lambda folder: (folder / "x").touch())
    assert [path.name for path in run.checkpoints(tmp_path)] == ["step_00010000"]
    assert (run.last_checkpoint(tmp_path) / "x").exists()


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    def fill_up(folder: Path) -> None:
        (folder / "x").touch()
        raise OSError(28, "No space left on device")

    run.save_checkpoint(tmp_path, 1, lambda folder: (folder / "x").touch())
    with pytest.raises(OSError, match="No space") as caught:
        run.save_checkpoint(tmp_path, 2, fill_up)
    assert "--resume" in caught.value.__notes__[0]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


def test_a_kill_while_writing_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "x").touch()
        raise KeyboardInterrupt

    run.save_checkpoint(tmp_path, 1, lambda folder: (folder / "x").touch())
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint(tmp_path, 2, killed)
    assert run.last_checkpoint(tmp_path).name == "step_00000001"
    run.save_checkpoint(tmp_path, 2, lambda folder: (folder / "y").touch())
    assert [path.name for path in run.last_checkpoint(tmp_path).iterdir()] == ["y"]


def test_a_run_without_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="start the run again"):
        run.last_checkpoint(tmp_path)


def test_rows_of_different_columns_share_one_table(tmp_path: Path) -> None:
    run.write_csv(tmp_path / "curve.csv", [{"step": 0}, {"step": 1, "queries": 5}])
    assert (tmp_path / "curve.csv").read_text().split() == ["step,queries", "0,", "1,5"]


def test_a_longer_evaluation_begins_with_the_same_episodes() -> None:
    assert episode_seeds(7, 3) == episode_seeds(7, 5)[:3]
    assert episode_seeds(7, 3) != episode_seeds(8, 3)


def test_examples_of_the_docstrings_hold() -> None:
    assert [doctest.testmod(module).failed for module in (run, evaluation)] == [0, 0]


def test_the_caption_leaves_the_frame_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (61, 80, 3), np.uint8)
    sentence = "press the button " * 5
    before, after = (captioned(frame, sentence, success) for success in (False, True))
    assert (before[:61] == frame).all()
    assert before.shape == after.shape
    assert (before[61:] != after[61:]).any()


def test_a_video_holds_every_frame(tmp_path: Path) -> None:
    from imageio_ffmpeg import count_frames_and_secs

    frames = [np.full((64, 64, 3), 4 * i, np.uint8) for i in range(12)]
    write_video(tmp_path / "a.mp4", frames, "press the button", [False] * 12, frames_per_second=6)
    assert count_frames_and_secs(tmp_path / "a.mp4") == (12, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_commit_says_when_code_differs_and_not_when_results_were_written(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert run.commit(tmp_path) == "unknown"
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for path in (results / "demo.json", tmp_path / "code.py"):
        path.write_text("before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = run.commit(tmp_path)
    assert len(clean) == 12
    (results / "demo.json").write_text("measured")
    assert run.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("changed")
    assert run.commit(tmp_path) == f"{clean}+"
