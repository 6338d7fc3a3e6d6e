"""Another process at work in a run folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def another_process_in(folder: Path) -> Iterator[None]:
    """Have another process hold a folder until it is killed."""
    code = f"import pathlib; from agents.run import hold; hold(pathlib.Path({str(folder)!r}))"
    words = [sys.executable, "-c", f"{code}; print(flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        yield
        other.kill()
