"""The hashes by which Kafka's clients find the partition of a key: Murmur2, of many keys at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SEED, _FACTOR = 0x9747B28C, 0x5BD1E995  # as in org.apache.kafka.common.utils.Utils.murmur2


def key_hashes(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """(n,) the hash of each key.

    aiokafka has it in pure Python, which takes as long for a key as all else that sending its record takes.
    """
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        joined = b"".join([keys[place] for place in places.tolist()])
        hashes[places] = _of_length(np.frombuffer(joined, np.uint8).reshape(len(places), length))
    return hashes


def _of_length(keys: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(n,) of keys of one length: (n, bytes)."""
    count, length = keys.shape
    words = length // 4
    hashes = np.full(count, _SEED ^ length, np.uint32)
    for word in keys[:, : 4 * words].copy().view("<u4").reshape(count, words).T:
        mixed = word * np.uint32(_FACTOR)
        mixed ^= mixed >> np.uint32(24)
        hashes = hashes * np.uint32(_FACTOR) ^ mixed * np.uint32(_FACTOR)
    rest = keys[:, 4 * words :]
    for place in range(rest.shape[1]):
        hashes ^= rest[:, place].astype(np.uint32) << np.uint32(8 * place)
    if rest.shape[1]:
        hashes *= np.uint32(_FACTOR)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(_FACTOR)
    return hashes ^ hashes >> np.uint32(15)
