"""Exports: what was collected comes back, from the files of LeRobot's format and from the library of Minari."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
from huggingface_hub import DatasetCard

from tests.helpers import decoded
from vlp_gym import cli
from vlp_gym.data.lerobot import STATE, STEPS_PER_SECOND
from vlp_gym.data.replay import Replay
from vlp_gym.data.statistics import histogram_of, pixel_statistics, statistics
from vlp_gym.data.trajectories import Trajectories
from vlp_gym.errors import CheckpointError, ExportError, MissingExtraError, UnknownNameError
from vlp_gym.scenes.metaworld import make_sawyer, metaworld_scene, seed_sawyer
from vlp_gym.scenes.mujoco import MujocoScene
from vlp_gym.tasks.metaworld import TASKS, UNDOING, find_task
from vlp_gym.training.collect import CollectConfig, collect, collect_command, collect_task
from vlp_gym.training.export import ExportConfig, export
from vlp_gym.training.undoing import make_env

TASK_NAMES = ("DoorClose", "Reach")
EPISODES = {"expert": 2, "random": 1}
N_STEPS = 12
SIZE_PX = 64
CAMERA = "corner3"
IMAGES = f"observation.images.{CAMERA}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected") / "few-3"
    return collect(
        CollectConfig(
            out=folder, tasks=TASK_NAMES, episodes=EPISODES, n_steps=N_STEPS, seed=3, workers=1
        )
    )


@pytest.fixture(scope="module")
def lerobot(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "lerobot"
    config = ExportConfig(
        data, "lerobot", out=out, camera=CAMERA, size_px=SIZE_PX, preset="draft", workers=1
    )
    return export(config)


def collected(data: Path, number: int) -> Trajectories:
    return Trajectories.load(data / f"{TASK_NAMES[number]}.npz")


def table(folder: Path, path: str) -> Any:
    return pq.read_table(folder / path)


def column(of: Any, name: str) -> np.ndarray:
    return np.array(of[name].to_pylist())


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def info(folder: Path) -> Any:
    return json.loads((folder / "meta/info.json").read_text())


@pytest.mark.parametrize("number", range(len(TASK_NAMES)))
def test_lerobot_rows_hold_what_was_collected(data: Path, lerobot: Path, number: int) -> None:
    rows = table(lerobot, f"data/chunk-000/file-{number:03d}.parquet")
    was = collected(data, number)
    flat = len(was) * N_STEPS
    np.testing.assert_array_equal(column(rows, "observation.state"), was.obs.reshape(flat, -1))
    np.testing.assert_array_equal(column(rows, "action"), was.action.reshape(flat, -1))
    np.testing.assert_array_equal(column(rows, "next.reward"), was.env_reward.ravel())
    np.testing.assert_array_equal(column(rows, "next.success"), was.success.ravel())
    assert rows["behaviour"].to_pylist() == [each for each in was.behaviour for _ in range(N_STEPS)]
    assert np.flatnonzero(column(rows, "next.done")).tolist() == [11, 23, 35]
    assert column(rows, "index").tolist() == list(range(number * flat, (number + 1) * flat))
    assert set(column(rows, "task_index")) == {number}
    np.testing.assert_allclose(
        column(rows, "timestamp"), column(rows, "frame_index") / STEPS_PER_SECOND, atol=1e-6
    )


def test_lerobot_features_are_the_columns_and_videos_that_there_are(lerobot: Path) -> None:
    features = info(lerobot)["features"]
    schema = table(lerobot, "data/chunk-000/file-000.parquet").schema
    assert [name for name in features if features[name]["dtype"] != "video"] == schema.names
    for name in schema.names:
        kind, shape = schema.field(name).type, features[name]["shape"]
        length = getattr(kind, "list_size", 1)
        assert [length] == shape, name
        dtype = features[name]["dtype"]
        expected = pa.string() if dtype == "string" else pa.from_numpy_dtype(dtype)
        assert getattr(kind, "value_type", kind) == expected, name
    assert len(STATE) == features["observation.state"]["shape"][0]
    assert (lerobot / f"videos/{IMAGES}/chunk-000/file-001.mp4").exists()


def test_lerobot_episodes_say_where_they_are_and_what_they_show(data: Path, lerobot: Path) -> None:
    episodes = table(lerobot, "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["episode_index"] for row in episodes] == list(range(6))
    assert [row["dataset_from_index"] for row in episodes] == list(range(0, 72, N_STEPS))
    assert [row["data/file_index"] for row in episodes] == [0, 0, 0, 1, 1, 1]
    assert [row["behaviour"] for row in episodes] == ["expert", "expert", "random"] * 2
    assert episodes[4]["seed"] == collected(data, 1).seed[1]
    assert episodes[4]["tasks"] == [find_task("Reach").instruction]
    second = N_STEPS / STEPS_PER_SECOND
    starts = [row[f"videos/{IMAGES}/from_timestamp"] for row in episodes]
    assert starts == pytest.approx([0, second, 2 * second] * 2)
    assert episodes[0]["stats/action/mean"] == pytest.approx(
        collected(data, 0).action[0].mean(0).tolist(), abs=1e-6
    )


def test_lerobot_tasks_are_numbered_by_their_sentence(lerobot: Path) -> None:
    tasks = table(lerobot, "meta/tasks.parquet")
    assert tasks["task"].to_pylist() == [find_task(name).instruction for name in TASK_NAMES]
    assert tasks["task_index"].to_pylist() == [0, 1]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_lerobot_sums_are_those_of_the_whole(data: Path, lerobot: Path) -> None:
    about = info(lerobot)
    assert (about["codebase_version"], about["fps"]) == ("v3.0", STEPS_PER_SECOND)
    assert (about["total_episodes"], about["total_frames"], about["total_tasks"]) == (6, 72, 2)
    whole = json.loads((lerobot / "meta/stats.json").read_text())
    rewards = np.concatenate([collected(data, i).env_reward.ravel() for i in range(2)])
    assert whole["next.reward"]["q90"] == pytest.approx([np.quantile(rewards, 0.9)])
    assert whole["observation.state"]["count"] == [72]
    assert np.array(whole[IMAGES]["mean"]).shape == (3, 1, 1)
    assert whole[IMAGES]["count"] == [72]


def test_lerobot_shows_what_was_seen_before_an_action(data: Path, lerobot: Path) -> None:
    was = collected(data, 0)
    frames = decoded(lerobot / f"videos/{IMAGES}/chunk-000/file-000.mp4", SIZE_PX)
    assert len(frames) == 3 * N_STEPS
    scene = metaworld_scene(make_sawyer("DoorClose"), CAMERA, SIZE_PX, "draft")
    episode = was.episode(1)
    states = np.stack([Replay(was).first_snapshot(1), *episode.snapshots])
    drawn = scene.draw(episode.constants, states)
    scene.close()
    shown = frames[N_STEPS : 2 * N_STEPS].astype(int)
    distance = np.abs(shown[:, None] - drawn).mean((2, 3, 4))  # [steps, states]
    assert distance.argmin(1).tolist() == list(range(N_STEPS))


def test_the_first_state_comes_before_the_first_stored_one(data: Path) -> None:
    was = collected(data, 0)
    replay = Replay(was)
    hand = np.linalg.norm(replay.first_snapshot(0)[:7] - was.snapshots[0][0, :7])
    assert 0 < hand < 0.1
    # The last observation holds the one before it as its second state.
    np.testing.assert_allclose(replay.last_obs(2)[18:36], was.obs[2, -1, :18], atol=1e-6)


def test_statistics_of_pixels_are_those_of_the_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 200, (5, 8, 8, 3)).astype(np.uint8)
    of_pixels = pixel_statistics(histogram_of(frames), 8)
    plain = statistics(frames.reshape(-1, 3) / 255)
    assert of_pixels["count"] == [5]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(of_pixels[name]), plain[name])
    np.testing.assert_allclose(np.ravel(of_pixels["q50"]), plain["q50"], atol=1 / 255)


def test_without_video_there_is_none(data: Path, tmp_path: Path) -> None:
    out = export(ExportConfig(data, "lerobot", out=tmp_path / "out", video=False))
    assert not (out / "videos").exists()
    assert info(out)["video_path"] is None
    assert not [key for key in info(out)["features"] if "images" in key]


def test_tasks_and_behaviours_can_be_chosen(data: Path, tmp_path: Path) -> None:
    out = export(
        ExportConfig(
            data, "lerobot", tmp_path / "out", tasks=("reach-v3",), behaviours=("random",),
            video=False,
        )
    )  # fmt: skip
    rows = table(out, "data/chunk-000/file-000.parquet")
    np.testing.assert_array_equal(column(rows, "action"), collected(data, 1).action[2])
    assert info(out)["total_episodes"] == 1


def test_several_processes_write_the_same_data_set(
    data: Path, lerobot: Path, tmp_path: Path
) -> None:
    out = export(
        ExportConfig(
            data, "lerobot", tmp_path / "lerobot", camera=CAMERA, size_px=SIZE_PX, preset="draft"
        )
    )
    assert files(out) == files(lerobot)
    for path in files(out):
        assert (out / path).read_bytes() == (lerobot / path).read_bytes(), path


def test_what_is_there_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for kind in ("lerobot", "minari"):
        with pytest.raises(SystemExit, match="vlp export: .*out is there already"):
            cli.main(["export", str(data), "--format", kind, "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").iterdir())


def test_an_error_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    here = tmp_path / "few-3"
    here.mkdir()
    (here / "config.json").write_bytes((data / "config.json").read_bytes())
    was = collected(data, 1)
    was.seed[2] += 1
    was.save(here / "Reach.npz")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="episode 2 of Reach does not repeat"):
        export(ExportConfig(here, "lerobot", size_px=SIZE_PX, preset="draft"))
    assert sorted(tmp_path.rglob("*")) == before


def test_frames_that_h264_cannot_hold_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="even"):
        export(ExportConfig(data, "lerobot", out=tmp_path / "out", size_px=33))
    assert not list(tmp_path.iterdir())


def test_unknown_names_are_refused(data: Path, tmp_path: Path) -> None:
    for wrong in ({"tasks": ("Reech",)}, {"behaviours": ("exprt",)}, {"camera": "corner9"}):
        with pytest.raises(UnknownNameError):
            export(ExportConfig(data, "lerobot", tmp_path / "out", workers=1, **wrong))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no data set at .*`vlp collect`"):
        cli.main(["export", str(tmp_path), "--format", "minari"])


def test_an_interrupted_collection_without_a_task_yet_says_so_too(tmp_path: Path) -> None:
    settings = {"episodes": EPISODES, "n_steps": N_STEPS, "seed": 0}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="no trajectories"):
        export(ExportConfig(tmp_path, "minari", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_is_in_the_data_set_and_how_it_is_made(data: Path) -> None:
    card = DatasetCard((data / "README.md").read_text())
    assert card.data.license == "mit" and "vlp-gym" in card.data.tags
    was = collected(data, 0)
    share = was.success.any(1).mean()
    assert f"| DoorClose | close the door | 3 | 36 | {share:.2f} |" in card.text
    assert "| random | 2 | 24 | 0.00 |" in card.text
    assert (
        "vlp collect --out data/few-3 --tasks DoorClose Reach --episodes expert 2 random 1 "
        "--n-steps 12 --seed 3" in card.text
    )


def test_the_card_of_an_export_is_read_by_the_hub(lerobot: Path) -> None:
    card = DatasetCard((lerobot / "README.md").read_text())
    assert card.data.configs == [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    assert "LeRobotDataset(" in card.text
    assert (
        "vlp export data/few-3 --format lerobot --camera corner3 --size-px 64 --preset draft"
        in card.text
    )


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (CollectConfig(), "vlp collect"),
        (CollectConfig(kind="mtvlp", seed=1), "vlp collect --kind mtvlp --seed 1"),
        (CollectConfig(n_steps=99, tasks=("Reach",)), "vlp collect --tasks Reach --n-steps 99"),
    ],
)
def test_the_command_of_the_card_is_what_was_typed(
    config: CollectConfig, command: str, tmp_path: Path
) -> None:
    from vlp_gym.training.collect import EPISODES as KINDS

    folder = tmp_path / f"{config.kind}-{config.seed}"
    folder.mkdir()
    settings = {"episodes": KINDS[config.kind], "n_steps": config.n_steps, "seed": config.seed}
    (folder / "config.json").write_text(json.dumps(settings))
    everything = [*TASKS, *(UNDOING if config.kind == "graded" else ())]
    assert collect_command(folder, config.tasks or everything) == command
    assert tyro.cli(CollectConfig, args=shlex.split(command)[2:]) == config


def test_the_command_of_other_episodes_can_be_typed(data: Path) -> None:
    words = shlex.split(collect_command(data, TASK_NAMES))
    typed = tyro.cli(CollectConfig, args=words[2:])
    assert (typed.episodes, typed.tasks, typed.seed) == (EPISODES, TASK_NAMES, 3)


def test_minari_opens_every_task_and_holds_what_was_collected(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    out = export(ExportConfig(data, "minari", out=tmp_path / "out"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
    names = [f"vlp/{name}/few-3-v0" for name in TASK_NAMES]
    assert sorted(minari.list_local_datasets()) == names
    for number, name in enumerate(names):
        was, opened = collected(data, number), minari.load_dataset(name)
        assert (opened.total_episodes, opened.total_steps) == (3, 36)
        for episode in opened.iterate_episodes():
            i = int(episode.id)
            np.testing.assert_array_equal(episode.observations[:-1], was.obs[i])
            np.testing.assert_array_equal(episode.observations[-1][18:36], was.obs[i, -1, :18])
            np.testing.assert_array_equal(episode.actions, was.action[i])
            np.testing.assert_array_equal(episode.rewards, was.env_reward[i])
            np.testing.assert_array_equal(episode.infos["success"], [False, *was.success[i]])
            assert not episode.terminations.any()
            assert np.flatnonzero(episode.truncations).tolist() == [N_STEPS - 1]
        about = list(opened.storage.get_episode_metadata([0, 2]))
        assert [each["behaviour"] for each in about] == ["expert", "random"]
        assert opened.storage.metadata["instruction"] == find_task(TASK_NAMES[number]).instruction


def test_the_env_of_a_minari_data_set_repeats_its_episodes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    out = export(ExportConfig(data, "minari", out=tmp_path / "out", tasks=("DoorClose",)))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
    opened = minari.load_dataset("vlp/DoorClose/few-3-v0")
    env = opened.recover_environment()
    assert env.observation_space == opened.observation_space
    assert env.action_space == opened.action_space
    (about,) = opened.storage.get_episode_metadata([1])
    env.reset()
    obs, _ = env.unwrapped.reset(seed=int(about["episode_seed"]))
    episode = opened[1]
    for step, action in enumerate(episode.actions):
        np.testing.assert_allclose(obs, episode.observations[step], atol=1e-6)
        obs, reward, _, truncated, _ = env.step(action)
        assert reward == pytest.approx(episode.rewards[step], rel=1e-5)
    np.testing.assert_allclose(obs, episode.observations[-1], atol=1e-6)
    assert truncated
    env.close()


UNDONE = ("DoorClose", "Reach", "UndoDoorOpen", "UndoDrawerOpen")


@pytest.fixture(scope="module")
def undone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected") / "undone"
    return collect(
        CollectConfig(out=folder, tasks=UNDONE, episodes={"random": 2}, n_steps=N_STEPS, workers=1)
    )


def test_a_task_that_undoes_another_is_exported_from_where_it_began(
    undone: Path, tmp_path: Path
) -> None:
    settings = ExportConfig(
        undone, "lerobot", tmp_path / "out", camera=CAMERA, size_px=SIZE_PX, preset="draft"
    )
    out = export(settings)
    was = Trajectories.load(undone / "UndoDoorOpen.npz")
    rows = table(out, "data/chunk-000/file-002.parquet")
    np.testing.assert_array_equal(
        column(rows, "observation.state"), was.obs.reshape(2 * N_STEPS, -1)
    )
    shown = decoded(out / f"videos/{IMAGES}/chunk-000/file-002.mp4", SIZE_PX).astype(int)
    env = make_env("UndoDoorOpen")
    scene = metaworld_scene(make_sawyer("UndoDoorOpen"), CAMERA, SIZE_PX, "draft")
    for i in range(2):
        # Where an env of its own begins, and last where the bare scene does, its door closed.
        began, bare = (began_at(each, int(was.seed[i])) for each in (env, env.env))
        drawn = scene.draw(was.episode(i).constants, np.stack([began, *was.snapshots[i], bare]))
        frames = shown[i * N_STEPS : (i + 1) * N_STEPS]
        distance = np.abs(frames[:, None] - drawn).mean((2, 3, 4))  # [steps, states]
        assert distance.argmin(1).tolist() == list(range(N_STEPS))
    scene.close()


def began_at(env: Any, seed: int) -> np.ndarray:
    """Return the state that an env begins in."""
    seed_sawyer(env, seed)
    env.reset()
    return MujocoScene(env.unwrapped.model).snapshot(env)


@pytest.mark.parametrize("name", UNDOING)
def test_an_episode_of_undoing_repeats_bit_for_bit(name: str) -> None:
    was = collect_task(name, {"random": 1, "expert": 1}, 5, seed=3)
    replay, env = Replay(was, make_env), make_env(name)
    for row in (1, 0):
        np.testing.assert_array_equal(replay.first_snapshot(row), began_at(env, int(was.seed[row])))
        np.testing.assert_allclose(replay.last_obs(row)[18:36], was.obs[row, -1, :18], atol=1e-6)


def test_tasks_that_ask_for_the_same_share_the_number_of_their_sentence(
    undone: Path, tmp_path: Path
) -> None:
    out = export(ExportConfig(undone, "lerobot", tmp_path / "out", video=False))
    tasks = table(out, "meta/tasks.parquet")
    sentences = tasks["task"].to_pylist()
    # The door is closed by two of the four tasks.
    assert sentences == [
        find_task(name).instruction for name in ("DoorClose", "Reach", "UndoDrawerOpen")
    ]
    assert tasks["task_index"].to_pylist() == [0, 1, 2] and info(out)["total_tasks"] == 3
    episodes = table(out, "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["data/file_index"] for row in episodes] == [0, 0, 1, 1, 2, 2, 3, 3]
    for number, name in enumerate(UNDONE):
        rows = table(out, f"data/chunk-000/file-{number:03d}.parquet")
        assert set(column(rows, "task_index")) == {sentences.index(find_task(name).instruction)}
        assert episodes[2 * number]["tasks"] == [find_task(name).instruction]


def test_minari_leaves_out_what_has_no_env(
    undone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = export(ExportConfig(undone, "minari", out=tmp_path / "out"))
    named = sorted(path.name for path in (out / "vlp").iterdir() if path.is_dir())
    assert named == ["DoorClose", "Reach"]
    (record,) = caplog.records
    assert "left out 2 of 4 tasks" in record.getMessage()
    assert record.getMessage().endswith("has none: UndoDoorOpen, UndoDrawerOpen")


def test_minari_refuses_what_has_no_env_where_it_is_asked_for(undone: Path, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    for name in ("config.json", "UndoDoorOpen.npz"):
        (only / name).write_bytes((undone / name).read_bytes())
    for data, tasks in ((undone, ("Reach", "UndoDoorOpen")), (only, ())):
        with pytest.raises(
            ExportError, match="none: UndoDoorOpen; export it with --format lerobot"
        ):
            export(ExportConfig(data, "minari", tmp_path / "out", tasks=tasks))
    assert not (tmp_path / "out").exists()


def test_without_minari_the_extra_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingExtraError, match=r"vlp-gym\[minari\]"):
        export(ExportConfig(data, "minari", out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())
