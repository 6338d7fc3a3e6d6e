"""The worlds of VLM-RM: prompts, physics, success, pictures; and the distance of rewards."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

import vlp_gym
from tests.test_score_reward import OfFrames
from vlp_gym.envs.vlmrm import CAMERA, CartPole, MountainCar, humanoid_xml, make_bare
from vlp_gym.errors import CheckpointError, RenderingError, UnknownNameError
from vlp_gym.reward.epic import epic_distance
from vlp_gym.scenes import scene_of
from vlp_gym.scenes.classic import ClassicScene
from vlp_gym.tasks.vlmrm import WORLDS, find_world
from vlp_gym.types import Scene, Task

BUNDLED: dict[str, Any] = {"checkpoint": "bundled", "device": "cpu"}


def steps(env: gym.Env[Any, Any], n: int, seed: int = 0) -> list[Any]:
    env.reset(seed=seed)
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(n)]


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_registered_with_its_prompt_and_time(name: str) -> None:
    spec = gym.spec(f"vlp/{name}")
    assert spec.max_episode_steps == WORLDS[name].max_episode_steps
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert find_world(name.upper()) is WORLDS[name]


def test_unknown_worlds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'HumanoidKneel'"):
        find_world("HumanoidKnees")


@pytest.mark.parametrize("name", ["CartPole", "MountainCar", "HumanoidStand"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # unbounded spaces are Gymnasium's own
def test_gymnasiums_checker_has_no_complaint(name: str) -> None:
    check_env(make_bare(WORLDS[name], "rgb_array"))


@pytest.mark.parametrize("name", ["CartPole", "MountainCar", "HumanoidSplits"])
def test_time_truncates_and_nothing_terminates(name: str) -> None:
    env = gym.make(f"vlp/{name}", reward="env", max_episode_steps=30)
    played = steps(env, 30)
    assert not any(terminated for _, _, terminated, _, _ in played)
    assert [truncated for *_, truncated, _ in played] == [False] * 29 + [True]
    assert all("env_reward" in info for *_, info in played)


def test_a_fallen_pole_goes_on_and_can_stand_again() -> None:
    env = CartPole()
    env.reset(seed=0)
    fell = [env.step(1)[4]["success"] for _ in range(60)]
    assert fell[0] and not fell[-1]
    for _ in range(200):
        obs, reward, *_, info = env.step(int(env.np_random.integers(2)))
        assert env.observation_space.contains(obs) and abs(obs[2]) <= np.pi
        assert reward == float(info["success"])
    env.state = np.array([0.0, 0.0, 0.01, 0.0])
    assert env.step(1)[4]["success"]


def test_a_car_at_the_flag_stays_and_the_next_episode_begins_anew() -> None:
    env = MountainCar()
    env.reset(seed=0)
    env.state = np.array([0.44, 0.05], np.float32)
    _, first, *_, info = env.step(np.array([1.0], np.float32))
    assert info["success"] and first > 90
    for _ in range(20):
        obs, reward, *_, info = env.step(np.array([-1.0], np.float32))
        assert info["success"] and obs[0] >= np.float32(0.45) and reward < 0
    env.reset(seed=1)
    obs, *_, info = env.step(np.array([0.0], np.float32))
    assert not info["success"] and obs[0] < 0


@pytest.mark.parametrize("kind", ["cartpole", "mountain-car"])
def test_pictures_are_made_of_states(kind: str) -> None:
    env = CartPole("rgb_array") if kind == "cartpole" else MountainCar("rgb_array")
    scene = scene_of(env, size_px=None)
    assert isinstance(scene, Scene) and isinstance(scene, ClassicScene)
    env.reset(seed=0)
    start = scene.snapshot(env)
    steps(env, 30)
    frames = scene.draw({}, np.stack([start, scene.snapshot(env)]))
    assert frames.shape == (2, 400, 600, 3) and (frames[0] != frames[1]).any()
    np.testing.assert_array_equal(frames[1], env.render())


def test_pictures_that_differ_are_told_apart() -> None:
    cars = [ClassicScene("mountain-car", *size) for size in ((None, None), (64, 96), (96, 64))]
    scenes = [*cars, ClassicScene("cartpole"), ClassicScene("mountain-car", textured=False)]
    assert len({each.identity for each in scenes}) == len(scenes)
    assert ClassicScene("cartpole", 400, 600).identity == ClassicScene("cartpole").identity


def test_the_pole_leans_to_the_right_for_positive_angles() -> None:
    scene = ClassicScene("cartpole")
    left, right = scene.draw({}, np.array([[0, 0, -0.5, 0], [0, 0, 0.5, 0]], float))
    wood = (202, 152, 101)
    columns = [np.flatnonzero((frame == wood).all(-1).any(0)).mean() for frame in (left, right)]
    assert columns[0] < 300 < columns[1]


def test_the_car_drives_up_to_the_flag() -> None:
    scene = ClassicScene("mountain-car")
    valley, top = scene.draw({}, np.array([[-0.5, 0], [0.45, 0]], float))
    red = [np.argwhere((frame == (190, 30, 30)).all(-1)).mean(0) for frame in (valley, top)]
    assert red[1][0] < red[0][0] - 100 and red[1][1] > red[0][1] + 100
    plain = ClassicScene("mountain-car", textured=False).draw({}, np.array([[-0.5, 0]], float))
    assert len(np.unique(plain)) < 20 < len(np.unique(valley))


def test_small_pictures_are_reduced_by_area() -> None:
    small = ClassicScene("cartpole", 100, 150).draw({}, np.zeros((1, 4)))
    assert small.shape == (1, 100, 150, 3) and small.min() < 60


def test_the_humanoid_is_seen_from_the_papers_camera() -> None:
    env = make_bare(WORLDS["HumanoidStand"], "rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert isinstance(frame, np.ndarray) and frame.shape == (480, 480, 3)
    scene = scene_of(env, CAMERA, 96, preset="exact")
    drawn = scene.draw(scene.constants(env), scene.snapshot(env)[None])[0].astype(int)
    # The pale robot stands in the middle, upright: its head is high above the horizon.
    pale = (drawn.min(-1) > 150) & (np.ptp(drawn, axis=-1) < 25)
    rows, columns = np.nonzero(pale[:, 36:60])
    assert len(rows) > 150 and rows.min() < 40 and rows.max() > 60
    plain = make_bare(WORLDS["HumanoidStand"], "rgb_array", textured=False)
    plain.reset(seed=0)
    other = plain.render()
    assert isinstance(other, np.ndarray) and np.abs(other.astype(int) - frame).mean() > 10
    for each in (scene, env, plain):
        each.close()


def test_the_camera_looks_at_one_metre_above_the_origin_from_three_and_a_half() -> None:
    import mujoco

    model = mujoco.MjModel.from_xml_string(humanoid_xml())
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = data.camera(CAMERA)
    way = np.array([0, 0, 1]) - camera.xpos
    assert np.linalg.norm(way) == pytest.approx(3.5, abs=1e-3)
    forward = -camera.xmat.reshape(3, 3)[:, 2]
    np.testing.assert_allclose(forward, way / np.linalg.norm(way), atol=1e-3)
    assert np.degrees(np.arcsin(-forward[2])) == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("name", ["CartPole", "MountainCar", "HumanoidKneel"])
def test_worlds_are_paid_by_their_prompt_and_baseline(name: str) -> None:
    env = gym.make(f"vlp/{name}", scorer={"alpha": 0.5}, max_episode_steps=4, **BUNDLED)
    scored = env.get_wrapper_attr("scorer")
    assert env.get_wrapper_attr("task").instruction == WORLDS[name].prompt
    assert scored._baseline == [WORLDS[name].baseline] and scored.alpha == 0.5
    rewards = [reward for _, reward, *_ in steps(env, 4)]
    assert len(set(rewards)) > 1 and all(reward <= 1 for reward in rewards)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert [reward for _, reward, *_ in steps(again, 4)] == rewards
    env.close()


def test_the_scorer_gets_the_frames_as_the_world_draws_them() -> None:
    class Sizes(OfFrames):
        preprocess = "fits them by itself"
        shapes: list[tuple[int, ...]] = []

        def __call__(self, clips: NDArray[np.uint8], task: Task) -> NDArray[np.float32]:
            self.shapes.append(clips.shape)
            return np.zeros(clips.shape[:2], np.float32)

    from vlp_gym.wrappers.score import ScoreReward

    env = ScoreReward(CartPole(), "balance", Sizes())  # no render mode: drawn from states
    steps(env, 1)
    assert Sizes.shapes == [(1, 1, 400, 600, 3)]


def test_without_weights_the_error_says_where_to_get_them(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("VLP_GYM_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match="ViT-bigG-14"):
        gym.make("vlp/HumanoidKneel")
    with pytest.raises(RenderingError, match="'human' is not supported"):
        gym.make("vlp/CartPole", reward="env", render_mode="human", disable_env_checker=True)


def test_epic_by_hand() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2_000))
    assert epic_distance(first, 3 * first - 7) == pytest.approx(0, abs=1e-6)
    assert epic_distance(first, -first) == pytest.approx(1)
    assert epic_distance(first, second) == pytest.approx(np.sqrt(0.5), abs=0.03)
    assert epic_distance(first, second) == pytest.approx(epic_distance(second, first))
    with pytest.raises(ValueError, match="same in every state"):
        epic_distance(first, np.zeros(2_000))
    with pytest.raises(ValueError, match="same states"):
        epic_distance(first, second[:5])
    with pytest.raises(ValueError, match="2000 that are NaN"):
        epic_distance(first, second * np.nan)


def test_worlds_are_public() -> None:
    assert vlp_gym.WORLDS is WORLDS
