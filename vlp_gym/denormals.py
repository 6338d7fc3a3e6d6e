"""Numbers below 1e-38: taken for 0, since processors are slow with them."""

import ctypes
from contextlib import suppress

import torch
from threadpoolctl import threadpool_info

HARD = 2
"""`omp_pause_hard` of OpenMP 5.0: threads that wait for work end, and are started anew when there is some."""


def flush_denormals(flush: bool = True) -> bool:
    """Have torch take numbers below 1e-38 for 0 on the CPU, and return whether the processor can.

    Units that stay silent leave such numbers in Adam's moments for good (0.9^n does not end at 0), and a step of Adam
    over many of them takes about twice as long. `torch.set_flush_denormal` alone reaches the thread that calls it and
    those that it starts later, so those that have worked for it already are ended here (of GNU's OpenMP, which PyTorch
    has on Linux; elsewhere they are left as they are).

    Args:
        flush: False has torch compute with them again, as it does by itself.
    """
    if not torch.set_flush_denormal(flush):
        return False
    for library in threadpool_info():
        if library["prefix"] == "libgomp":
            with suppress(AttributeError, OSError):  # older than OpenMP 5.0
                ctypes.CDLL(library["filepath"]).omp_pause_resource_all(HARD)
    return True
