"""Writes that a kill cannot halve: into a temporary file or folder beside the target, synced, then renamed over it."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlp_gym.errors import DiskFullError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces `target`, on an error it is removed and `target` is untouched.

    The temporary file keeps the suffix of `target`, for writers that choose a format by it.

    Raises:
        DiskFullError: no space is left where `target` belongs.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        with _full_disk_is_named(target, "it goes on from there"):
            yield temporary
            _sync(temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new temporary folder; on success it becomes `target`, on an error it is removed.

    A kill leaves a hidden folder `.NAME.PID.tmp` beside `target`, and no `target`.

    Raises:
        FileExistsError: there is something at `target` already.
        DiskFullError: no space is left where `target` belongs.
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(f"{target} is there already; name another folder, or remove this one")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _full_disk_is_named(target, "it starts anew"):
            temporary.mkdir(parents=True)
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    _sync(path)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _full_disk_is_named(target: Path, afterwards: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            error.errno,
            "no space left on the disk; what was complete before is untouched. Free some space and run the same "
            f"command again: {afterwards}",
            str(target),
        ) from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def atomic_write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text)
