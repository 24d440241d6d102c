"""A seeded generator of upload records that end as dead letters: no events, or events that must be refused."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.errors import EventError
from models.events import TrackUploaded, decode_event
from tests.platform.clock import now_ms

MALFORMED, REFUSED, FUTURE = "malformed_event", "refused_uri", "future_event"
YEAR_2023_MS = 1_700_000_000_000
YEAR_9999_MS = 253_402_300_799_999


class Sent(NamedTuple):
    """A record, and why it becomes a dead letter."""

    key: bytes | None
    value: bytes | None
    reason: str


def event(number: int, **fields: Any) -> dict[str, Any]:
    """An event of the contract whose URI no worker fetches."""
    return {
        "event_id": f"e{number}",
        "track_id": f"malformed-{number}",
        "uri": f"gopher://music.invalid/{number}",
        "uploaded_at": YEAR_2023_MS + number,
    } | fields


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _missing(chance: random.Random, number: int) -> tuple[bytes, str]:
    whole = event(number)
    for name in chance.sample(sorted(whole), chance.randint(1, len(whole))):
        del whole[name]
    return _json(whole), MALFORMED


def _extra(chance: random.Random, number: int) -> tuple[bytes, str]:
    scraps = [None, True, -1, 1.5, "", "x" * 1000, [], {}, [[[{"a": [1, "b", None]}]]]]
    return _json(event(number) | {f"x{n}": chance.choice(scraps) for n in range(chance.randint(1, 50))}), REFUSED


def _wrong_type(chance: random.Random, number: int) -> tuple[bytes, str]:
    name = chance.choice(["event_id", "track_id", "uri", "uploaded_at"])
    wrong = [None, True, 1.5, [], {}, [name], {"a": 1}, "" if name != "uploaded_at" else "1700000000000"]
    return _json(event(number) | {name: chance.choice(wrong)}), MALFORMED


def _out_of_range(chance: random.Random, number: int) -> tuple[bytes, str]:
    fields: list[dict[str, Any]] = [
        *(
            {"uploaded_at": n}
            for n in (-1, YEAR_2023_MS // 1000, YEAR_9999_MS + 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400)
        ),
        *({"duration_ms": n} for n in (-1, 2**53 + 1, 2**64, 10**30)),
        *({name: "x" * 257} for name in ("event_id", "track_id", "artist_id")),
        *({name: "ä" * 129} for name in ("event_id", "track_id", "artist_id")),
        *({"uri": "x" * 8193}, {"title": "x" * 4097}),
    ]
    return _json(event(number) | chance.choice(fields)), MALFORMED


def _no_number(chance: random.Random, number: int) -> tuple[bytes, str]:
    literal = chance.choice(["NaN", "Infinity", "-Infinity", "1e999", "-0x1", "01", "1.", ".5", "+1", "1e", "1_000"])
    return _json(event(number)).replace(str(YEAR_2023_MS + number).encode(), literal.encode()), MALFORMED


def _no_unicode(chance: random.Random, number: int) -> tuple[bytes, str]:
    bad = chance.choice(
        [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\\ud800", b"\\udfff"]
    )
    return _json(event(number)).replace(b"malformed-", b"malformed-" + bad), MALFORMED


def _no_object(chance: random.Random, number: int) -> tuple[bytes, str]:
    whole = _json(event(number))
    return chance.choice(
        [
            *(b" ", b"\0", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[" + whole + b"]", _json(whole.decode())),
            *(b"\xef\xbb\xbf" + whole, whole.decode().encode("utf-16"), whole.decode().encode("utf-32"), whole + b"}"),
            *(whole + whole, whole[:-1] + b",}", whole.replace(b'"', b"'"), whole.replace(b":", b"="), b"\0" + whole),
            *(b"{" + whole, whole + b"\0", b"<event/>", b"event_id=1", b"\x80\x04\x95.", b"//\n" + whole[:-1]),
        ]
    ), MALFORMED


def _nested(chance: random.Random, number: int) -> tuple[bytes, str]:
    depth = chance.choice([100_000, 200_000])
    opening = chance.choice([b"[", b'{"x":', b'[{"x":'])
    start = chance.choice([b"", b'{"x":', _json(event(number))[:-1] + b',"x":'])
    return start + opening * (depth // len(opening)), MALFORMED


def _nested_and_closed(_: random.Random, number: int) -> tuple[bytes, str]:
    return _json(event(number))[:-1] + b',"x":' + b"[" * 50 + b"]" * 50 + b"}", REFUSED


def _twice(chance: random.Random, number: int) -> tuple[bytes, str]:
    """A field that is there twice: the last value counts."""
    last = _json(event(number))
    if chance.random() < 0.5:
        return b'{"uri":"file:///good.wav","track_id":"another",' + last[1:], REFUSED
    return last[:-1] + b',"uri":7}', MALFORMED


def _ahead(chance: random.Random, number: int) -> tuple[bytes, str]:
    return _json(event(number, uploaded_at=chance.choice([YEAR_9999_MS, YEAR_2023_MS * 10]))), FUTURE


def _cut(chance: random.Random, number: int) -> tuple[bytes, str]:
    whole = _json(event(number))
    return whole[: chance.randrange(1, len(whole))], MALFORMED


def _noise(chance: random.Random, _: int) -> tuple[bytes, str]:
    return bytes([chance.randrange(128, 256)]) + chance.randbytes(chance.randrange(2000)), MALFORMED


def _flipped(chance: random.Random, number: int) -> tuple[bytes, str]:
    """A good event with a few bytes changed; the decoder itself says whether it is still an event."""
    value = bytearray(_json(event(number, title="Song", artist_id="a1", duration_ms=1000)))
    for _ in range(chance.randint(1, 4)):
        value[chance.randrange(len(value))] = chance.choice([chance.randrange(256), *b'{}[]",:0e-\\'])
    try:
        read = decode_event(bytes(value), TrackUploaded)
    except EventError:
        return bytes(value), MALFORMED
    return bytes(value), FUTURE if read.uploaded_at > now_ms() else REFUSED


def _nothing(chance: random.Random, _: int) -> tuple[bytes | None, str]:
    return chance.choice([None, b""]), MALFORMED


Kind = Callable[[random.Random, int], tuple[bytes | None, str]]
KINDS: tuple[Kind, ...] = (
    *(_missing, _extra, _wrong_type, _out_of_range, _no_number, _no_unicode, _no_object, _nested_and_closed),
    *(_nothing, _twice, _ahead, _cut, _noise, _flipped, _flipped, _flipped),
)


def malformed_events(count: int, *, seed: int, huge_bytes: int) -> Iterator[Sent]:
    """The same records for the same seed.

    In every 500 records two are of about huge_bytes, one nests deeply and one has a key of 100,000 bytes.
    """
    chance = random.Random(seed)
    for number in range(count):
        key: bytes | None = chance.choice([None, b"", b"key", b"\0\xff" * 8, f"malformed-{number}".encode()])
        match number % 500:
            case 0:
                value, reason = _json(event(number, padding="x" * (huge_bytes - 1000))), REFUSED
            case 1:
                value, reason = b"\xff" * (huge_bytes - 1000), MALFORMED
            case 2:
                value, reason = _nested(chance, number)
            case 3:
                key = chance.randbytes(100_000)
                value, reason = _json([]), MALFORMED
            case _:
                value, reason = chance.choice(KINDS)(chance, number)
        yield Sent(key, value, reason)
