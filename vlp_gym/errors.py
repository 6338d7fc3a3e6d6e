"""Errors that a user can cause, each a subclass of the built-in it refines. Messages say what to do."""


class UnknownNameError(ValueError):
    """A task, camera, labeler or preset that does not exist; names the closest that do."""

    @classmethod
    def of(cls, what: str, got: str, known: list[str]) -> "UnknownNameError":
        """Return the error for the unknown name `got`, with the closest known names."""
        from difflib import get_close_matches  # noqa: PLC0415

        lowered = {name.lower(): name for name in known}
        close = [lowered[name] for name in get_close_matches(got.lower(), lowered, n=3, cutoff=0.4)]
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"known: {', '.join(known)}"
        )
        return cls(f"unknown {what} {got!r}; {hint}")


class InstructionError(ValueError):
    """An instruction that is empty, too long for the text encoder, or kept for testing; or a file that holds none."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another kind or version."""


class RenderingError(RuntimeError):
    """No off-screen OpenGL, or an env that cannot be drawn."""


class FeedbackError(RuntimeError):
    """A labeler or an env broke the contract of the feedback loop."""


class EndpointError(RuntimeError):
    """A service on the network that fails, refuses, or answers what cannot be used."""


class DiskFullError(OSError):
    """A file that did not fit on its disk; what stood under its name before is untouched."""


class BusyRunError(RuntimeError):
    """A run folder that another process is at work in."""


class DataError(ValueError):
    """Recorded data that nothing can be learned from as they are; says what is wrong with them and what to do."""


class ExportError(ValueError):
    """A data set that cannot be written in the way that was asked for."""


class MissingExtraError(ImportError):
    """An optional package that is not installed; names the extra that brings it."""


class SettingError(ValueError):
    """A setting that is out of its range or does not fit another, or what a scorer is given and cannot read."""


USER_ERRORS = (
    BusyRunError,
    CheckpointError,
    DataError,
    DiskFullError,
    EndpointError,
    ExportError,
    FeedbackError,
    FileExistsError,
    FileNotFoundError,
    InstructionError,
    MissingExtraError,
    RenderingError,
    SettingError,
    UnknownNameError,
)
"""What a user can cause: shown as one line, without a traceback."""
