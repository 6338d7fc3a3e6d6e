"""Writes that a kill cannot halve: into a temporary file beside the target, synced, then renamed over it."""

import errno
import os
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
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            error.errno,
            "no space left on the disk; what was complete before is untouched. Free some space and run the same "
            "command again: it goes on from there",
            str(target),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text)
