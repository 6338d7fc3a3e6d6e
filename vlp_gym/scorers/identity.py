"""What tells scorers apart that give the same frames different scores: a label store keeps scores by it."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray


def identity_of(name: str, settings: Mapping[str, Any]) -> str:
    """Return a scorer's name with its settings as JSON; arrays, such as pictures, are told by their hash.

    >>> identity_of("vlmrm", {"baseline": None, "alpha": 0.5})
    'vlmrm {"alpha": 0.5, "baseline": null}'
    """
    return f"{name} {json.dumps(dict(settings), sort_keys=True, default=_hash)}"


def _hash(array: NDArray[Any]) -> str:
    content = blake2b(f"{array.dtype.str} {array.shape};".encode(), digest_size=16)
    content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
