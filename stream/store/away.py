"""Which errors of Redis say that it is away, that is, that a record has to wait for it; and what to do about them."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator

import msgspec
import redis.exceptions

from models.errors import TastewaveError

_KINDS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)
_FAULT_OF_A_SCRIPT = re.compile(r"user_script:\d+: [a-z]")  # Lua's own errors begin with a small letter, no other does
_FOR_GOOD = re.compile(r"unknown command|DB index|cluster mode")
_WRONG_TYPE = "WRONGTYPE"
_ADVICE = (
    (r"^(MovedError|AskError)\b|cluster mode", "it is a node of a Cluster: set TASTEWAVE_REDIS_CLUSTER=true"),
    (r"cluster support disabled|[Cc]luster mode is not enabled", "it is no Cluster: leave TASTEWAVE_REDIS_CLUSTER out"),
    (r"DB index", "name a database that it has in TASTEWAVE_REDIS_URL"),
    (
        r"^NoPermissionError\b|\bNOPERM\b|can't run this command|can't access at least one of the keys",
        "grant its user the keys and commands of deploy/docs/production.md",
    ),
    (r"^Authentication|^AuthorizationError\b|\bDENIED\b", "correct the user and password in TASTEWAVE_REDIS_URL"),
    (_WRONG_TYPE, "delete the key that tastewave did not write, or give tastewave a database of its own"),
    (r"^OutOfMemoryError\b|\bOOM\b", "raise its maxmemory"),
    (r"^ReadOnlyError\b", "let TASTEWAVE_REDIS_URL lead to the primary"),
    (r"unknown command", "let TASTEWAVE_REDIS_URL lead to a Redis 6 or later that allows its commands"),
)  # by the name of the error and its text


class ForeignValue(TastewaveError):
    """A key of tastewave's holds what tastewave did not write."""


def is_redis_away(error: BaseException) -> bool:
    """Whether a record that met this error should wait and be tried again.

    Whatever Redis answers is no fault of the record: it takes no writes, its user may not do that, it is the wrong
    server or database, or the key holds something foreign. Only where a script itself fails, or the client cannot send
    what it was given, this program is at fault, which no waiting mends.
    """
    if isinstance(error, redis.exceptions.DataError):
        return False
    if isinstance(error, redis.exceptions.ResponseError):
        return not _FAULT_OF_A_SCRIPT.search(str(error))
    return isinstance(error, (*_KINDS, ForeignValue))


def is_foreign(error: object) -> bool:
    """Whether Redis says that a key holds what tastewave did not write."""
    return isinstance(error, redis.exceptions.ResponseError) and _WRONG_TYPE in str(error)


def needs_another_setting(error: BaseException) -> bool:
    """Whether Redis will never serve this client: it has no such command or database, or is a node of a Cluster."""
    if isinstance(error, redis.exceptions.AskError):  # MovedError is one
        return True
    return isinstance(error, redis.exceptions.ResponseError) and bool(_FOR_GOOD.search(str(error)))


def redis_advice(error: BaseException) -> str:
    """What to do about an error of Redis; empty where its text says enough."""
    if isinstance(error, _KINDS):
        told = f"{type(error).__name__} {error}"
        return next((advice for pattern, advice in _ADVICE if re.search(pattern, told)), "")
    return ""


@contextlib.contextmanager
def named(key: str) -> Iterator[None]:
    """Around the use of a key and the reading of its value: neither Redis nor a decoder names the key.

    Raises:
        ForeignValue: the key holds what tastewave did not write.
    """
    try:
        yield
    except (redis.exceptions.ResponseError, LookupError, ValueError, msgspec.MsgspecError, struct.error) as error:
        if isinstance(error, redis.exceptions.ResponseError) and not is_foreign(error):
            raise
        raise ForeignValue(
            f"the key {key!r} holds what tastewave did not write ({error}); delete it, or give tastewave a database "
            "of its own"
        ) from None
