"""Main memory that was freed, handed back to the system."""

import ctypes


def hand_back_freed_memory() -> bool:
    """Hand memory that was freed back to the system, and return whether the C library can (glibc can).

    Left alone, glibc keeps what a session of drawing, scoring and fitting freed in small pieces, some 80 MB, for the
    next one, which is thousands of steps away.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return False
    trim(0)
    return True
