"""The README's programs run as they stand, only shorter."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def shortened(program: str) -> str:
    """Return the program with a fiftieth of every number that is written with an underscore."""
    return re.sub(r"\b\d+_000\b", lambda found: str(int(found[0]) // 50), program)


def test_numbers_of_steps_are_shortened() -> None:
    assert shortened("learn(25_000, 50)") == "learn(500, 50)"


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # progress_bar=True of SB3
@pytest.mark.parametrize("program", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_every_program_runs(program: str) -> None:
    names: dict[str, object] = {}
    exec(compile(shortened(program), str(README), "exec"), names)
    env = names["env"]
    env.close()  # type: ignore[attr-defined]


def test_the_first_program_is_the_first_thing_a_reader_can_run() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 12
    assert 'gym.make("vlp/' in BLOCKS[0]


def test_line_one_says_what_it_is() -> None:
    assert TEXT.splitlines()[0].startswith("# vlp-gym: ")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):", (README.parent / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^make (\w+)", TEXT, re.MULTILINE)
    assert commands == ["demo", "test"]
    assert set(commands) <= set(targets)


def test_every_path_that_is_named_is_there() -> None:
    for path in re.findall(r"`((?:benchmarks|agents|tests|vlp_gym)/[\w/.]*)`", TEXT):
        assert (README.parent / path).exists(), path


def test_every_subcommand_of_vlp_that_is_named_is_real() -> None:
    from vlp_gym.cli import COMMANDS

    assert set(re.findall(r"^vlp (\w+)", TEXT, re.MULTILINE)) <= set(COMMANDS)
