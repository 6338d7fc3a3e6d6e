"""Numbers below 1e-38 are taken for 0 by every thread of torch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vlp_gym.denormals import flush_denormals


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch have two threads that compute with denormal numbers, and put back what was."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    flush_denormals(False)
    yield
    flush_denormals(False)
    torch.set_num_threads(before)


def n_denormal_products() -> int:
    """Return how many of 400,000 products are no 0, by their bits: a thread that flushes reads 0 in any case."""
    products = torch.full((400_000,), 1e-30) * 1e-10
    return np.count_nonzero(products.numpy().view(np.int32))


@pytest.mark.usefixtures("two_threads")
def test_threads_that_have_worked_before_flush_too_and_stop_to() -> None:
    assert n_denormal_products() == 400_000
    flush_denormals()
    assert n_denormal_products() == 0
    flush_denormals(False)
    assert n_denormal_products() == 400_000


@pytest.mark.usefixtures("two_threads")
def test_torch_computes_as_before() -> None:
    left, right = torch.rand(2, 300, 300, generator=torch.Generator().manual_seed(0))
    before = left @ right
    flush_denormals()
    torch.testing.assert_close(left @ right, before, rtol=0, atol=0)
