"""The numbers of the README come from the committed results, and from nothing else."""

import doctest
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from agents import pebble, run
from benchmarks import (
    demo,
    online,
    pebble_runs,
    preference_model,
    reference,
    report,
    schema,
    scored_runs,
    scoring,
    studies,
)
from benchmarks.pebble_runs import NAMES, scale_of
from benchmarks.schema import Record, read_records, write_records
from tests.other_process import another_process_in
from vlp_gym.training.behaviours import BEHAVIOURS

NOWHERE = {"commit": "abc", "machine": {"cpu": "one", "cores": 2}, "versions": {}}


def record(method: str = "vlp", seed: int | None = None, **fields: object) -> Record:
    defaults = {"task": "ButtonPress", "metrics": {"success": 0.5}, "seconds": 1.0, **NOWHERE}
    return Record(method=method, seed=seed, **{**defaults, **fields})  # type: ignore[arg-type]


def test_records_survive_the_disk(tmp_path: Path) -> None:
    records = [record(seed=0, paper={"success": 0.9}), record("oracle", metrics={})]
    write_records("demo", records, tmp_path)
    assert read_records("demo", tmp_path) == records


def test_a_benchmark_that_was_not_run_has_no_records(tmp_path: Path) -> None:
    assert read_records("demo", tmp_path) == []


def test_a_record_of_now_names_commit_machine_and_versions() -> None:
    made = Record.now(task="-", method="fast", metrics={}, seconds=0.0)
    assert made.commit
    assert made.machine["cores"] >= 1
    assert {"python", "torch", "mujoco"} <= set(made.versions)


def test_a_table_shows_the_mean_and_every_seed(tmp_path: Path) -> None:
    seeds = [record(seed=s, metrics={"success": v}) for s, v in enumerate([1.0, 0.8, 0.0])]
    write_records("demo", seeds, tmp_path)
    assert "| ButtonPress | vlp | 0.600 (1, 0.800, 0) |" in report.table("demo", tmp_path)


def test_the_papers_numbers_stand_in_a_column_of_their_own(tmp_path: Path) -> None:
    write_records("demo", [record(paper={"success": 0.93}), record("oracle")], tmp_path)
    lines = report.table("demo", tmp_path).splitlines()
    assert lines[0] == "| task | method | success | success (paper) |"
    assert lines[2] == "| ButtonPress | vlp | 0.500 | 0.930 |"
    assert lines[3] == "| ButtonPress | oracle | 0.500 | - |"


def test_a_table_says_where_it_was_measured(tmp_path: Path) -> None:
    write_records("demo", [record(seed=3, scale="10 steps")], tmp_path)
    last = report.table("demo", tmp_path).splitlines()[-1]
    assert last == "<sub>10 steps · seeds 3 · commit abc · 2 cores of one</sub>"


def test_a_column_of_tasks_is_left_out_where_no_task_is_meant(tmp_path: Path) -> None:
    write_records("imports", [record("import vlp_gym", task="-")], tmp_path)
    assert report.table("imports", tmp_path).startswith("| method | success |")


def test_only_the_text_between_markers_changes(tmp_path: Path) -> None:
    text = "before\n<!-- results:demo -->\nold\n<!-- /results:demo -->\nafter"
    write_records("demo", [record()], tmp_path)
    rendered = report.render(text, tmp_path)
    assert rendered.startswith("before\n<!-- results:demo -->\n| task |")
    assert rendered.endswith("</sub>\n<!-- /results:demo -->\nafter")
    assert report.render(rendered, tmp_path) == rendered


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.97, "0.970"), (12.34, "12.3"), (1234.5, "1,234"), (1.0, "1")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert report._number(value) == text


def test_a_bar_in_a_heading_is_no_border(tmp_path: Path) -> None:
    write_records("imports", [record(task="-", metrics={"|delta|": 0.5})], tmp_path)
    assert report.table("imports", tmp_path).startswith("| method | \\|delta\\| |\n")


@pytest.mark.parametrize("page", report.PAGES)
def test_pages_equal_the_committed_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- results:" in text
    assert text == report.render(text), "run `python -m benchmarks.report`"


def test_every_committed_result_is_shown_and_every_program_is_named() -> None:
    texts = [page.read_text(encoding="utf-8") for page in report.PAGES]
    for path in schema.RESULTS.glob("*.json"):
        assert any(f"<!-- results:{path.stem} -->" in text for text in texts), path
    for path in report.HERE.glob("[a-z]*.py"):
        if "__main__" in path.read_text(encoding="utf-8"):
            assert f"`{path.stem}`" in texts[1], path


def test_every_committed_result_can_be_read() -> None:
    for path in schema.RESULTS.glob("*.json"):
        assert read_records(path.stem), f"{path} holds no records"


@pytest.mark.parametrize("module", [schema, pebble_runs])
def test_examples_hold(module: ModuleType) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted and not tried.failed


def tiny_demo(folder: Path) -> demo.Config:
    from tests.test_pebble import TINY

    runs = replace(TINY, steps=60)
    return demo.Config(runs, ("oracle", "env"), (3,), folder / "runs", folder / "results")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> demo.Config:
    config = tiny_demo(tmp_path_factory.mktemp("demo"))
    demo.compare(config)
    return config


def test_the_demo_writes_one_record_a_run_and_a_figure(compared: demo.Config) -> None:
    records = read_records("demo", compared.results)
    assert [record.method for record in records] == [NAMES["oracle"], NAMES["env"]]
    assert {record.seed for record in records} == {3}
    assert records[0].metrics["queries"] == 4
    assert records[0].metrics["best on the way"] == max(records[0].series["success"][1:])
    assert "queries" not in records[1].metrics
    assert (compared.results / "demo.png").stat().st_size


def refuse(*args: Any) -> None:
    raise AssertionError("it ran again")


def test_finished_runs_are_not_run_again(
    compared: demo.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pebble, "learn", refuse)
    monkeypatch.setattr(pebble, "go_on", refuse)
    before = read_records("demo", compared.results)
    assert demo.compare(compared) == before


def test_a_stopped_run_goes_on(compared: demo.Config) -> None:
    folder = compared.runs / "oracle-seed3"
    (folder / "result.json").unlink()
    end = run.last_checkpoint(folder)
    demo.compare(compared)
    assert (folder / "result.json").exists()
    assert run.last_checkpoint(folder) == end


def test_a_run_of_other_settings_is_refused(compared: demo.Config) -> None:
    other = replace(compared, base=replace(compared.base, steps=61))
    with pytest.raises(ValueError, match="other settings"):
        demo.compare(other)


def test_feedback_is_no_setting_of_an_agent_that_the_simulator_pays(compared: demo.Config) -> None:
    feedback = replace(compared.base.feedback, segment_length=7)
    other = replace(compared, base=replace(compared.base, feedback=feedback))
    assert demo.compare(replace(other, methods=("env",)))
    with pytest.raises(ValueError, match="other settings"):
        demo.compare(other)


def test_parts_of_the_demo_add_up(compared: demo.Config, tmp_path: Path) -> None:
    both = demo.compare(compared)
    write_records("demo", both, tmp_path)
    runs = tmp_path / "runs"
    again = demo.compare(
        replace(compared, methods=("env",), seeds=(4,), runs=runs, results=tmp_path)
    )
    assert again[:2] == both
    assert [(each.method, each.seed) for each in again[2:]] == [(NAMES["env"], 4)]


def test_runs_are_found_again_by_another_path(
    compared: demo.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = demo.compare(compared)
    monkeypatch.chdir(compared.runs)
    again = demo.compare(replace(compared, runs=Path()))
    assert [record.seconds for record in again] == [record.seconds for record in records]


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    config = online.Config(
        tasks=("ButtonPress",),
        methods=("env",),
        seeds=(0,),
        runs=tmp_path / "runs",
        results=tmp_path,
    )
    folder = config.runs / "ButtonPress-env-seed0"
    folder.mkdir(parents=True)
    with another_process_in(folder):
        assert online.compare(config) == []
    assert not list(folder.iterdir())


def test_what_the_demo_or_another_machine_ran_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pebble, "learn", refuse)
    scale, shares = scale_of(pebble.DEMO), dict.fromkeys(online.SHARES, 1.0)
    of_demo = Record("DrawerClose", NAMES["env"], shares, 1.0, 1, scale)
    elsewhere = Record("DoorClose", NAMES["env"], shares, 1.0, 1, scale)
    write_records("demo", [of_demo], tmp_path)
    write_records("online", [elsewhere], tmp_path)
    tasks = ("DoorClose", "DrawerClose")
    config = online.Config(
        tasks=tasks, methods=("env",), seeds=(1,), runs=tmp_path / "runs", results=tmp_path
    )
    assert online.compare(config) == [elsewhere, of_demo]
    longer = replace(config, base=replace(pebble.DEMO, steps=20_000))
    with pytest.raises(AssertionError, match="again"):
        online.compare(longer)
    with pytest.raises(ValueError, match="--name of their own"):
        replace(longer, results=schema.RESULTS)


def test_parts_of_the_online_comparison_add_up(tmp_path: Path) -> None:
    from tests.test_pebble import TINY

    tasks = ("DoorClose", "ButtonPress")
    base = replace(TINY, steps=60)
    whole = online.Config(base, tasks, ("env",), (1,), tmp_path / "runs", tmp_path)
    online.compare(replace(whole, tasks=tasks[:1]))
    online.compare(replace(whole, tasks=tasks[1:]))
    records = read_records("online", tmp_path)
    assert [record.task for record in records] == ["ButtonPress", "DoorClose"]
    assert (tmp_path / "online.png").stat().st_size
    with pytest.raises(ValueError, match="tasks must be of"):
        online.Config(tasks=("DoorOpen",))


@pytest.mark.parametrize("settings", [reference.OURS, reference.THEIRS])
def test_our_settings_and_b_prefs_ask_as_much(settings: pebble.Config) -> None:
    feedback = settings.feedback
    n_sessions = sum(feedback.is_due(step) for step in range(1, settings.steps + 1))
    assert settings.steps == reference.STEPS
    assert n_sessions * feedback.queries_per_session >= feedback.budget == 800


def test_our_settings_and_b_prefs_stand_side_by_side(tmp_path: Path) -> None:
    from tests.test_pebble import TINY

    ours = replace(TINY, steps=60)
    theirs = replace(ours, sac=replace(ours.sac, depth=3, actor_average=0.0))
    config = reference.Config("DoorClose", (1,), ours, theirs, tmp_path / "runs", tmp_path)
    theirs_now = tmp_path / "runs" / "DoorClose-B-Pref's-seed1"
    theirs_now.mkdir(parents=True)
    with another_process_in(theirs_now):
        assert [each.method for each in reference.compare(config)] == ["our settings"]
    records = reference.compare(config)
    assert [each.method for each in records] == list(reference.METHODS)
    assert [each.metrics["queries"] for each in records] == [4, 4]
    elsewhere = replace(config, runs=tmp_path / "none", seeds=())
    assert reference.compare(elsewhere) == [] and reference.write(elsewhere) == records


def test_agents_that_a_scorer_pays_stand_beside_the_others(tmp_path: Path) -> None:
    from tests.test_pebble import TINY

    base = replace(TINY, steps=60, max_episode_steps=20, evaluate_every=60, final_episodes=1)
    config = online.Config(
        base, ("DoorClose",), ("env",), (1,), tmp_path / "runs", tmp_path,
        scorers=("vlmrm checkpoint=bundled alpha=0.5",),
    )  # fmt: skip
    online.compare(config)
    records = {record.method: record for record in online.compare(config)}  # nothing runs twice
    assert set(records) == {"the simulator's reward", "reward of vlmrm:stand-in:vlp-compact"}
    paid = scored_runs.settings(base, "DoorClose", config.scorers[0], 1, tmp_path)
    assert paid.settings == ("alpha=0.5", "baseline=door") and paid.protocol == "metaworld"
    folder = tmp_path / "runs" / "DoorClose-vlmrm-reward-seed1"
    assert (folder / "result.json").exists()
    # Without its name the run that is there stays in the table.
    assert len(online.compare(replace(config, scorers=()))) == 2
    with pytest.raises(ValueError, match="other steps"):
        scored_runs.results_in(tmp_path / "runs", replace(base, steps=61))
    with pytest.raises(ValueError, match="scorers must be of"):
        replace(config, scorers=("clop",))


def test_every_training_of_the_studies_has_one_folder_and_differs_from_the_base(
    tmp_path: Path,
) -> None:
    config = studies.Config(runs=tmp_path)
    variants = [each for study in studies.STUDIES.values() for each in study.values()]
    of_run: dict[str, Any] = {}
    for variant in variants:
        wanted = studies.settings(variant, config)
        assert of_run.setdefault(variant.run, wanted) == wanted
        assert set(studies.DATA[variant.data]) <= set(BEHAVIOURS)
    assert len(set(map(repr, of_run.values()))) == len(of_run)
    base = replace(of_run["base"], out=Path())
    assert all(replace(of_run[run], out=Path()) != base for run in of_run if run != "base")


def test_a_finished_training_is_judged_once(tmp_path: Path) -> None:
    config = studies.Config(("ml45",), runs=tmp_path / "runs", results=tmp_path)
    wanted = studies.settings(studies.STUDIES["ml45"]["ML45 split"], config)
    measured = {"metrics": {"ITP": 0.9}, "seconds": 3.0, **run.provenance()}
    run.write_json(wanted.out / "result.json", measured)
    studies.study(config)
    (record,) = read_records("study_ml45", tmp_path)
    assert (record.metrics, record.paper) == ({"ITP": 0.9}, {"k-means labels": 0.97})


@pytest.mark.parametrize(
    "other", [{"checkpoint": Path("runs/vlp/checkpoint")}, {"split": "paper-dev"}]
)
def test_another_model_is_not_taken_for_the_bundled_one(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--name and a --method of its own"):
        preference_model.Config(**other)
    named = preference_model.Config(**other, name="held_out", method="one training")
    assert bool(preference_model.paper_of(named)) == (named.split == "paper")


def test_the_feature_cache_spares_the_encoder(tmp_path: Path) -> None:
    small = replace(scoring.PAPER, clip="vlp-compact", stages=(3,), image_size_px=64, n_frames=2)
    frozen = {"small": scoring.Frozen(replace(small, width=32, heads=2), tune=())}
    config = scoring.Config(cached=frozen, train_repeats=1, windows=1)
    cached, every_time = scoring.measure_cache(config, tmp_path)
    # So small an encoder costs next to nothing; what it spares is certain only in operations.
    assert cached.metrics["times faster"] > 0 and every_time.metrics["times faster"] == 1
    assert cached.metrics["times fewer operations"] > 1


def test_operations_are_those_of_the_products() -> None:
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert scoring.operations(lambda: left @ right) == 2 * 2 * 3 * 5


def test_online_runs_of_other_machines_stay_and_all_tasks_get_a_mean(tmp_path: Path) -> None:
    name, series = NAMES["oracle"], {"step": [0.0, 60.0], "success": [0.0, 1.0]}
    scale = scale_of(pebble.DEMO)
    others = [
        Record(task, name, dict.fromkeys(online.SHARES, reached), 1.0, seed, scale, series=series)
        for task, reached in zip(online.FIVE, (0.0, 0.5, 0.5, 0.5, 1.0), strict=True)
        for seed in (0, 1)
    ]
    of_another_scale = replace(others[0], scale="10 steps", seed=2)
    write_records("online", [*others, of_another_scale], tmp_path)
    config = online.Config(runs=tmp_path / "runs", results=tmp_path)
    *rows, mean = online.write(config)
    assert rows == sorted(others, key=lambda each: online.FIVE.index(each.task))
    assert (mean.task, mean.method, mean.metrics["success after"]) == ("all five", name, 0.5)
    assert mean.metrics["95 % from"] <= mean.metrics["IQM"] == 0.5 <= mean.metrics["95 % to"]
    assert (tmp_path / "online.png").stat().st_size
    assert online.write(config) == [*others, mean]  # a mean is made anew, never averaged
