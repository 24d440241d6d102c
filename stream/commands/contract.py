"""`tastewave contract check`: whether what a Redis holds is as contract 1 says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
import redis.exceptions
from pydantic import SecretStr

from models.contract import CONTRACT, decode_taggram, live_key, track_answer, user_answer
from models.errors import TastewaveError
from models.events import MAX_ID_BYTES, TrackTagged, UserEmbedded
from stream.commands.tables import print_table, progress_bar
from stream.settings import RedisSettings
from stream.store.client import sync_client

_KEYS_AT_ONCE = 500
_TOLD = 20
_OWN = ("history", "feedback", "forgotten", "forgotten-track", "features", "corrected", "health", "releases")
_LARGEST_NORM_ERROR = 1e-3


class NothingToCheck(TastewaveError):
    """Redis holds no key of tastewave."""


class Breach(NamedTuple):
    """What is not as the contract says.

    Attributes:
        key: that it is about.
        what: one sentence.
    """

    key: str
    what: str


class Found(NamedTuple):
    """What a walk through a Redis found.

    Attributes:
        keys: how many there are of each kind.
        breaches: in the order of the walk.
    """

    keys: Counter[str]
    breaches: list[Breach]


def check_contract(settings: RedisSettings, *, url: str | None = None, as_json: bool = False) -> bool:
    """Print what breaks the contract. Returns whether nothing does.

    Args:
        settings: of Redis.
        url: of another Redis than that of the settings.
        as_json: print one JSON line.

    Raises:
        NothingToCheck: there is no key of tastewave.
        RedisUnusable: Redis does not answer, or refuses this client.
    """
    if url is not None:
        settings = settings.model_copy(update={"url": SecretStr(url)})
    with sync_client(settings) as client:
        found = walk(client, prefix=settings.key_prefix)
    if not found.keys:
        raise NothingToCheck(
            f"Redis has no key that begins with {settings.key_prefix}:; start a worker, or set "
            "TASTEWAVE_REDIS_KEY_PREFIX to the prefix of your workers"
        )
    if as_json:
        click.echo(msgspec.json.encode({"keys": found.keys, "breaches": [b._asdict() for b in found.breaches]}))
    else:
        click.echo(", ".join(f"{number:,} {kind}" for kind, number in sorted(found.keys.items())))
        if found.breaches:
            print_table(("key", "what breaks the contract"), found.breaches[:_TOLD])
        if (more := len(found.breaches) - _TOLD) > 0:
            click.echo(f"and {more:,} more")
        if not found.breaches:
            click.echo(f"all as contract {CONTRACT} says")
    return not found.breaches


def walk(client: Any, *, prefix: str) -> Found:
    """Look at every key of tastewave.

    Args:
        client: a redis.Redis or RedisCluster that returns bytes.
        prefix: of the keys.
    """
    found = Found(Counter(), [])
    widths: dict[bytes, int] = {}
    keys = iter(client.scan_iter(match=f"{prefix}:*", count=_KEYS_AT_ONCE))
    with progress_bar() as progress:
        task = progress.add_task("keys", total=client.dbsize() if not hasattr(client, "get_nodes") else None)
        while part := list(islice(keys, _KEYS_AT_ONCE)):
            for key, kind, release, name, value in _read(client, part, prefix):
                found.keys[kind] += 1
                whats = [f"{value}"] if isinstance(value, Exception) else _CHECKS[kind](release, name, value, widths)
                found.breaches.extend(Breach(key.decode(errors="backslashreplace"), what) for what in whats)
            progress.advance(task, len(part))
    if not found.keys["live"] and found.keys:
        found.breaches.insert(0, Breach(live_key(prefix=prefix), "it is missing: no release is live"))
    return found


def _read(client: Any, keys: Sequence[bytes], prefix: str) -> Iterator[tuple[bytes, str, bytes, bytes, Any]]:
    """Each key with its kind, its release, the id that it is about, and what it holds."""
    named = [(key, *_kind(key, prefix)) for key in keys]
    pipeline = client.pipeline(transaction=False)
    for key, kind, _, _ in named:
        if kind in ("live", "track", "user"):
            pipeline.hgetall(key)
        elif kind == "taggram":
            pipeline.get(key)
        else:
            pipeline.exists(key)
    for (key, kind, release, name), value in zip(named, pipeline.execute(raise_on_error=False), strict=True):
        if isinstance(value, Exception) and not isinstance(value, redis.exceptions.ResponseError):
            raise value
        if value:  # what went away since is no breach
            yield key, kind, release, name, value


def _kind(key: bytes, prefix: str) -> tuple[str, bytes, bytes]:
    """Kind, release and id of a key."""
    rest = key[len(prefix) + 1 :]
    if rest == b"live":
        return "live", b"", b""
    if answer := re.fullmatch(rb"([^:]+):(track|user|taggram):\{(.*)\}", rest, re.DOTALL):
        release, kind, name = answer.groups()
        return kind.decode(), release, name
    own = rest.partition(b":")[0].decode(errors="replace") in _OWN or re.match(rb"[^:]+:hearing:", rest)
    return ("own" if own else "unknown"), b"", b""


def _check_live(_release: bytes, _name: bytes, fields: Mapping[bytes, bytes], _widths: object) -> Iterator[str]:
    if fields.get(b"contract") != str(CONTRACT).encode():
        yield f"contract is {fields.get(b'contract')!r}, not {CONTRACT}"
    if not fields.get(b"release"):
        yield "it has no release"


def _check_track(release: bytes, name: bytes, fields: Mapping[bytes, bytes], widths: dict[bytes, int]) -> Iterator[str]:
    answer = yield from _answer(track_answer, TrackTagged, release, name, fields)
    if answer is None:
        return
    for field, there, expected in (
        ("genre", answer.genre is not None, answer.status in ("tagged", "corrected")),
        ("corrected_at", answer.corrected_at is not None, answer.status == "corrected"),
        ("confidence", answer.confidence is not None, not answer.failed),
        ("reason", answer.reason is not None, answer.failed),
    ):
        if there != expected:
            yield f"status is {answer.status}, and {field} is {'there' if there else 'missing'}"
    if answer.embedding is not None:
        yield from _check_vector(release, answer.embedding, widths)


def _check_user(release: bytes, name: bytes, fields: Mapping[bytes, bytes], widths: dict[bytes, int]) -> Iterator[str]:
    answer = yield from _answer(user_answer, UserEmbedded, release, name, fields)
    if answer is not None:
        yield from _check_vector(release, answer.embedding, widths)


def _check_taggram(_release: bytes, _name: bytes, value: bytes, _widths: object) -> Iterator[str]:
    try:
        decode_taggram(value)
    except ValueError as error:
        yield str(error)


def _check_unknown(_release: bytes, _name: bytes, _value: object, _widths: object) -> Iterator[str]:
    yield "contract 1 has no such key"


def _check_own(_release: bytes, _name: bytes, _value: object, _widths: object) -> Iterator[str]:
    yield from ()


def _answer(make: Any, kind: Any, release: bytes, name: bytes, fields: Mapping[bytes, bytes]) -> Iterator[Any]:
    if not 0 < len(name) <= MAX_ID_BYTES:
        yield f"its id has {len(name)} bytes, and 1 to {MAX_ID_BYTES} are allowed"
    try:
        answer = make(name.decode(), release.decode(), fields)
        return msgspec.convert(msgspec.to_builtins(answer), kind)  # making a struct checks no types
    except KeyError as error:
        yield f"the field {error.args[0].decode() if isinstance(error.args[0], bytes) else error} is missing"
    except (ValueError, msgspec.MsgspecError) as error:
        yield f"a field cannot be read: {error}"
    return None


def _check_vector(release: bytes, embedding: Sequence[float], widths: dict[bytes, int]) -> Iterator[str]:
    width = widths.setdefault(release, len(embedding))
    if len(embedding) != width:
        yield f"its embedding has {len(embedding)} numbers, and others of the release have {width}"
    if not abs(float(np.linalg.norm(embedding)) - 1.0) <= _LARGEST_NORM_ERROR:
        yield f"its embedding has norm {np.linalg.norm(embedding):.4f}, not 1"


_CHECKS: dict[str, Any] = {
    "live": _check_live,
    "track": _check_track,
    "user": _check_user,
    "taggram": _check_taggram,
    "own": _check_own,
    "unknown": _check_unknown,
}
