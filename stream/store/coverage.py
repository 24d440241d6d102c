"""How many of a release's keys another release has as well: readers that are pointed at it miss the others.

Where Redis puts a key follows from a hash of its name with a secret of the server. So the keys that a SCAN gives first
are drawn at random, whenever and by whom they were written. The walk ends as soon as they show on which side of the
bound the whole is, and at the latest with the last key: then the share is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

_FIRST_LOOK = 20_000
_KEYS_AT_ONCE = 500
_SCANNED_AT_ONCE = 1000
_Z = 4.0  # a look errs in 6 of 100,000 cases on each side, and there are as many looks as the keys can be doubled


class Coverage(NamedTuple):
    """Keys of a release that another one has as well.

    Attributes:
        keys: that were looked at. Tracks whose upload failed are none of them.
        covered: of these, how many the other release has; of tracks, with an answer that heard the audio.
        whole: whether these are all keys of the release.
    """

    keys: int
    covered: int
    whole: bool

    @property
    def share(self) -> float:
        """How much is covered, 0 to 1; 1 where there are no keys."""
        return self.covered / self.keys if self.keys else 1.0

    def tells(self, least: float) -> bool | None:
        """Whether at least this share of all keys is covered; None where these keys do not tell yet."""
        if self.whole:
            return self.share >= least
        low, high = _wilson(self.covered, self.keys)
        return True if low >= least else False if high < least else None


def coverage(
    client: Any,
    what: Literal["track", "user"],
    *,
    of: str,
    by: str,
    least: float,
    key_prefix: str,
    on_keys: Callable[[int], None] = lambda _: None,
) -> Coverage:
    """How many keys of a release another one has, looked at until that tells whether they are at least a share.

    Args:
        client: a redis.Redis or RedisCluster that returns bytes.
        what: the keys of tracks or of users.
        of: the release whose keys are looked at.
        by: the other release.
        least: the share, 0 to 1.
        key_prefix: of all keys.
        on_keys: is told how many keys were scanned since it was told last.
    """
    keys, covered, next_look = 0, 0, _FIRST_LOOK
    for part in _parts(client, f"{key_prefix}:{of}:{what}:"):
        counted, both = _count(client, what, part, of=f"{key_prefix}:{of}", by=f"{key_prefix}:{by}")
        keys, covered = keys + counted, covered + both
        on_keys(len(part))
        if keys >= next_look:
            next_look *= 2
            if (seen := Coverage(keys, covered, whole=False)).tells(least) is not None:
                return seen
    return Coverage(keys, covered, whole=True)


def _parts(client: Any, beginning: str) -> Iterator[list[bytes]]:
    """All keys with this beginning, in parts; of a Cluster from all its nodes in turn."""
    part: list[bytes] = []
    for key in client.scan_iter(match=f"{beginning}*", count=_SCANNED_AT_ONCE):
        part.append(key)
        if len(part) == _KEYS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _count(client: Any, what: str, keys: list[bytes], *, of: str, by: str) -> tuple[int, int]:
    """How many of the keys count, and how many of these the other release has."""
    field = "status" if what == "track" else "source"
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hget(key, field)
        pipeline.hget(by.encode() + key[len(of.encode()) :], field)
    values = pipeline.execute()
    pairs = zip(values[::2], values[1::2], strict=True)
    counted = [other for own, other in pairs if own not in (None, b"failed")]
    return len(counted), sum(other not in (None, b"failed") for other in counted)


def _wilson(covered: int, keys: int) -> tuple[float, float]:
    """The interval of a share (Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927)."""
    share, z2 = covered / keys, _Z**2
    centre = (share + z2 / (2 * keys)) / (1 + z2 / keys)
    half = _Z / (1 + z2 / keys) * math.sqrt(share * (1 - share) / keys + z2 / (4 * keys**2))
    return centre - half, centre + half
