"""The command `vlp`: every subcommand is real, and what a user did wrong is one line."""

import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from vlp_gym import cli, doctor
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.doctor import Finding
from vlp_gym.feedback.table import LabelTable


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def trajectories(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    episodes, steps = 4, 60
    path = tmp_path / "ButtonPress.npz"
    Trajectories(
        task_name="ButtonPress",
        behaviour=("expert", "expert", "random", "random"),
        seed=np.arange(episodes),
        obs=rng.normal(size=(episodes, steps, 39)).astype(np.float32),
        action=rng.uniform(-1, 1, (episodes, steps, 4)).astype(np.float32),
        env_reward=rng.uniform(size=(episodes, steps)).astype(np.float32),
        success=np.zeros((episodes, steps), bool),
        snapshots=rng.normal(size=(episodes, steps, 17)),
        constants={"body_pos": rng.normal(size=(episodes, 3, 3))},
    ).save(path)
    return path


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_exists_and_says_what_it_does(name: str) -> None:
    module, _, function = cli.COMMANDS[name].partition(":")
    found = getattr(import_module(module), function)
    assert found.__doc__
    assert list(signature(found).parameters) in ([], ["config"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    text = said(capsys)
    assert f"vlp {name}" in text
    assert "--config" not in text
    assert "Raises:" not in text


def test_without_a_subcommand_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    assert exit_.value.code == 0
    text = said(capsys)
    assert all(f"• {name} " in text for name in cli.COMMANDS)


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "vlp_gym", "instructions", "DoorOpen"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "open the door" in said


def test_an_error_of_the_user_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="vlp label: no trajectories at .*`vlp collect`"):
        cli.main(["label", str(tmp_path / "none.npz")])


def test_an_unknown_task_names_the_closest(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="did you mean 'ButtonPress'"):
        cli.main(["collect", "--tasks", "ButtonPres", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--own-sentences", "0", "own_sentences must be 1 or more, got 0"),
        ("--steps", "0", "steps must be 1 or more, got 0"),
        ("--average-from", "1", "average_from must be in [0, 1), got 1"),
    ],
)
def test_a_value_that_a_config_refuses_is_said(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", option, value])
    assert message in capsys.readouterr().err


def test_label_writes_a_table_that_can_be_read_back(
    trajectories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["label", str(trajectories), "--labeler", "oracle", "--queries", "7"])
    text = said(capsys)
    assert "'agreement with the return': 1.0" in text
    table = LabelTable.load(trajectories.with_suffix(".labels.parquet"))
    assert len(table) == table.n_labelled == 7
    assert set(table.column("instruction")) == {"press the button"}
    assert set(table.column("labeler")) == {"oracle"}


def test_label_cuts_the_same_pairs_for_the_same_seed(trajectories: Path, tmp_path: Path) -> None:
    tables = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.parquet"
        rest = ["--labeler", "oracle", "--seed", seed, "--out", str(out)]
        cli.main(["label", str(trajectories), *rest])
        tables.append(LabelTable.load(out).column("first_start").tolist())
    assert tables[0] == tables[1] != tables[2]


def test_label_can_leave_behaviours_out(trajectories: Path) -> None:
    cli.main(["label", str(trajectories), "--labeler", "oracle", "--behaviours", "random"])
    table = LabelTable.load(trajectories.with_suffix(".labels.parquet"))
    assert set(table.column("first_episode")) | set(table.column("second_episode")) == {2, 3}


def test_label_names_the_behaviours_that_there_are(trajectories: Path) -> None:
    with pytest.raises(SystemExit, match="did you mean 'expert'"):
        cli.main(["label", str(trajectories), "--labeler", "oracle", "--behaviours", "exprt"])


def test_doctor_ends_well_when_nothing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([Finding("OpenGL", "off screen [egl]")]))
    cli.main(["doctor"])
    assert said(capsys) == "ok OpenGL: off screen [egl]"


def test_doctor_says_what_to_do_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = Finding("OpenGL", "none", "apt-get install libegl1")
    monkeypatch.setattr(doctor, "examine", lambda: iter([ill]))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["doctor"])
    assert exit_.value.code == 1
    assert "to do: apt-get install libegl1" in said(capsys)


def test_doctor_looks_for_an_opengl_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(doctor, "opens", lambda backend: backend == "osmesa")
    assert doctor.check_opengl() == Finding("OpenGL", "off screen with MUJOCO_GL=osmesa")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = doctor.check_opengl()
    assert finding.cure.startswith("unset MUJOCO_GL")


def test_doctor_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    finding = doctor.check_packages()
    assert finding.cure == "pip install no-such-package"
    assert "numpy" in finding.state


def test_doctor_sees_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "executable", "false")
    assert "torch torchvision" in doctor.check_torchvision().cure


def test_doctor_lists_the_files_of_other_peoples_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VLP_GYM_WEIGHTS", str(tmp_path))
    (tmp_path / "liv.pt").touch()
    monkeypatch.setattr(doctor, "examine", doctor.check_official_files)
    cli.main(["doctor"])  # a missing one is no fault
    text = said(capsys)
    assert f"ok liv checkpoint: {tmp_path / 'liv.pt'}" in text
    assert (
        "without roboclip vocabulary: put it at $VLP_GYM_WEIGHTS/s3d_dict.npy; get it from" in text
    )
