"""The matrix products of a step and nothing else: what no code that multiplies with PyTorch can get below."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes down the factors of all products, by shape and how they lie in memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.factors: list[tuple[Tensor, Tensor]] = []
        self._arrays: dict[tuple[Any, ...], Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket.__name__ in PRODUCTS:
            first, second = [each for each in args if isinstance(each, Tensor)][-2:]
            self.factors.append((self._like(first, 0), self._like(second, 1)))
        return func(*args, **(kwargs or {}))

    def _like(self, factor: Tensor, side: int) -> Tensor:
        key = (side, factor.shape, factor.stride())
        if key not in self._arrays:
            laid_out = torch.empty_strided(factor.shape, factor.stride())
            self._arrays[key] = laid_out.fill_(1.0)
        return self._arrays[key]


def products_of(step: Callable[[], Any]) -> Callable[[], None]:
    """Take a step once, and return its matrix products, forward and backward, as a step of their own.

    Factors of one shape share an array, results are written into arrays that are there, biases are not added.
    """
    with _Seen() as seen:
        step()
    written: dict[torch.Size, Tensor] = {}
    calls = []
    for first, second in seen.factors:
        shape = torch.Size((*first.shape[:-1], second.shape[-1]))
        out = written.setdefault(shape, torch.empty(shape))
        calls.append((torch.mm if first.ndim == 2 else torch.bmm, first, second, out))

    def products() -> None:
        for multiply, first, second, out in calls:
            multiply(first, second, out=out)

    return products
