"""Exploration noise: it lasts, it fades, and only its seed decides it."""

import numpy as np

from agents.exploration import FadingNoise


def rows(noise: FadingNoise, n_rows: int) -> np.ndarray:
    return np.stack([noise() for _ in range(n_rows)])


def test_the_noise_lasts_about_as_long_as_its_memory() -> None:
    noise = rows(FadingNoise(64, steps=10**9, memory=20.0, seed=0), 2_000)
    lagged = (noise[20:] * noise[:-20]).mean() / (noise**2).mean()
    assert abs(lagged - np.exp(-1)) < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_the_noise_fades_to_nothing() -> None:
    noise = np.abs(rows(FadingNoise(64, steps=100, memory=5.0, seed=0), 120)).mean(1)
    assert noise[:20].mean() > 3 * noise[80:100].mean() > 0
    assert (noise[100:] == 0).all()


def test_a_reset_changes_nothing_and_a_seed_everything() -> None:
    first, second = (FadingNoise(4, steps=100, memory=5.0, seed=3) for _ in range(2))
    second.reset()
    np.testing.assert_array_equal(rows(first, 10), rows(second, 10))
    assert not np.array_equal(rows(FadingNoise(4, 100, 5.0, seed=4), 10), rows(second, 10))
