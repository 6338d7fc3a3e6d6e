"""The command `vlp`: collect and export data, train and evaluate a preference model, label, replay, see the machine."""

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import getdoc
from typing import Any, get_type_hints

import tyro

from vlp_gym.errors import USER_ERRORS

COMMANDS = {
    "collect": "vlp_gym.training.collect:collect",
    "train": "vlp_gym.training.trainer:train",
    "average": "vlp_gym.training.average:average_command",
    "evaluate": "vlp_gym.training.evaluation:evaluate_command",
    "attention": "vlp_gym.training.attention:attention",
    "label": "vlp_gym.training.labelling:label",
    "score": "vlp_gym.training.scored_steps:score",
    "replay": "vlp_gym.envs.replay:replay",
    "store": "vlp_gym.labelers.store:export_store",
    "export": "vlp_gym.training.export:export",
    "instructions": "vlp_gym.tasks.authoring:author",
    "doctor": "vlp_gym.doctor:doctor",
}
"""Where each subcommand is; imported only when it is asked for, because some load torch."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the subcommand that the command line names."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = arguments[0] if arguments else ""
    if asked not in COMMANDS:
        # Nothing to run: this says which subcommands there are, and exits.
        commands = {name: _function(place) for name, place in COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="vlp", description=__doc__, args=arguments
        )
        return
    function = _function(COMMANDS[asked])
    config = [hint for name, hint in get_type_hints(function).items() if name != "return"]
    options: dict[str, Any] = {
        "prog": f"vlp {asked}",
        "description": _summary(function),
        "args": arguments[1:],
    }
    try:
        # What takes no config still has --help.
        _show(function(tyro.cli(config[0], **options)) if config else tyro.cli(function, **options))
    except USER_ERRORS as error:
        sys.exit(f"vlp {asked}: {error}")


def _summary(function: Callable[..., Any]) -> str:
    """Return what a function does, without the sections on errors and arguments."""
    text = getdoc(function) or ""
    return re.split(r"\n\n(?:Args|Raises|Returns):", text)[0]


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _show(result: Any) -> None:
    """Print what a subcommand returned: a path, a table of numbers, nothing."""
    from rich import print as show  # noqa: PLC0415

    if result is not None:
        show(result)
