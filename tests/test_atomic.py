"""Writes that nothing can halve: a kill, an error, a full disk."""

import errno
import pickle
from pathlib import Path

import pytest

from vlp_gym.atomic import atomic_folder, atomic_path, atomic_write_text
from vlp_gym.errors import DiskFullError


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.json", "one")
    atomic_write_text(tmp_path / "a.json", "two")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["two"]


def test_an_error_while_writing_leaves_what_stood_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "before")
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_full_disk_leaves_what_stood_there_and_says_what_to_do(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "before")
    with pytest.raises(DiskFullError, match="Free some space") as caught:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            with Path("/dev/full").open("w") as full:
                full.write("the real error of a real full device")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    # It comes out of worker processes, too.
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_other_errors_of_the_disk_keep_their_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "none" / "a.txt") as temporary:
        temporary.write_text("x")


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "b").mkdir()
        (temporary / "b" / "c.txt").write_text("one")
        assert not (tmp_path / "a").exists()
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.txt")] == [Path("a/b/c.txt")]


def test_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="remove"), atomic_folder(tmp_path):
        raise AssertionError


def test_an_error_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "b.txt").write_text("half")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_folder_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="Free some space"), atomic_folder(tmp_path / "a"):
        with Path("/dev/full").open("w") as full:
            full.write("the real error of a real full device")
    assert not list(tmp_path.iterdir())
