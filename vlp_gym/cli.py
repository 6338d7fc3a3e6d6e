"""The command `vlp`: collect data, train and evaluate a preference model, label, look at the machine."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import Parameter, Signature
from typing import Annotated, Any, get_type_hints

import tyro

from vlp_gym.errors import (
    CheckpointError,
    FeedbackError,
    InstructionError,
    RenderingError,
    UnknownNameError,
)

COMMANDS = {
    "collect": "vlp_gym.training.collect:collect",
    "train": "vlp_gym.training.trainer:train",
    "evaluate": "vlp_gym.training.evaluation:evaluate",
    "label": "vlp_gym.training.labelling:label",
    "doctor": "vlp_gym.doctor:doctor",
}
"""Where each subcommand is; imported only when it is asked for, because some load torch."""

USER_ERRORS = (
    CheckpointError,
    FeedbackError,
    FileExistsError,
    FileNotFoundError,
    InstructionError,
    RenderingError,
    UnknownNameError,
)
"""What a user can cause: shown as one line, without a traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that the command line names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = arguments[0] if arguments else ""
    names = [asked] if asked in COMMANDS else list(COMMANDS)
    try:
        tyro.extras.subcommand_cli_from_dict(
            {name: _command(COMMANDS[name]) for name in names},
            prog="vlp",
            description=__doc__,
            args=arguments,
        )
    except USER_ERRORS as error:
        sys.exit(f"vlp {asked}: {error}")


def _command(place: str) -> Callable[..., None]:
    """Return a function as a subcommand: the fields of its config are the options."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    options = {
        each: Annotated[hint, tyro.conf.arg(name="")]
        for each, hint in get_type_hints(function).items()
        if each != "return"
    }

    def run(**config: Any) -> None:
        _show(function(**config))

    # tyro makes options of a function's signature; without the name they would read --config.out.
    parameters = [
        Parameter(each, Parameter.KEYWORD_ONLY, annotation=options[each]) for each in options
    ]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = options
    run.__doc__ = function.__doc__
    return run


def _show(result: Any) -> None:
    """Print what a subcommand returned: a path, a table of numbers, nothing."""
    from rich import print as show  # noqa: PLC0415

    if result is not None:
        show(result)
