"""The newest dead letters, and the way to send their events again."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, RequestBody, Schema
from litestar.params import QueryParameter

from stream.broker.redrive import Choice, Redriven, Source
from stream.serve.bodies import read_body
from stream.serve.letters import Held, Letters, Redrives, Run
from stream.serve.lookups import AnyRequest, Guard, documents
from stream.serve.problems import BadRequest, SwitchedOff, documented
from stream.serve.runbook import Advice, advice
from stream.settings import Settings

_MOST_SOURCES = 500
_LATEST_MS = 253_402_300_799_999
Reason = Annotated[str | None, QueryParameter(name="reason", max_length=64, description="only letters of this reason")]
Since = Annotated[
    int, QueryParameter(name="since", ge=0, le=_LATEST_MS, description="only letters of this time (ms) or later")
]
After = Annotated[str | None, QueryParameter(name="after", description="`next` of the page before")]
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="the most letters of a page")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class From(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the event of a letter was read; topic as Kafka calls it."""

    topic: _Text
    partition: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]
    offset: Annotated[int, msgspec.Meta(ge=-1, lt=10**18)]


class Letter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A dead letter.

    Attributes:
        time: when its event was given up, ms.
        reason: code of the error.
        message: what the error says.
        source: where its event was read.
        attempts: how often it was tried.
        release: of the worker that gave it up.
        key: of its event, the first 256 bytes.
        track_id: that its event names.
        user_id: that its event names.
        truncated: whether a part of the event is missing. Such a letter is not redriven.
        redriven_at: when a redrive began that has sent its event again, ms; of this process, since its start.
        redriven_by: who asked for that.
    """

    time: int
    reason: str
    message: str
    source: From
    attempts: int
    release: str
    key: str | None = None
    track_id: str | None = None
    user_id: str | None = None
    truncated: bool = False
    redriven_at: int | None = None
    redriven_by: str | None = None


class LetterPage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Dead letters, newest first.

    Attributes:
        letters: of this page.
        counts: how many of the newest letters each reason has, whatever is asked for.
        explained: what the runbook says of each of these reasons.
        are_all: whether the newest letters are all that the topic holds.
        may_redrive: whether TASTEWAVE_SERVE_REDRIVE is on.
        running: the redrive that runs now.
        next: what `after` of the next page has to be.
    """

    letters: list[Letter]
    counts: dict[str, int]
    explained: dict[str, Advice]
    are_all: bool
    may_redrive: bool
    running: Run | None = None
    next: str | None = None


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which letters are redriven: those that meet all of it. by: who asks, for the log."""

    by: _Text
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    since: Annotated[int, msgspec.Meta(ge=0, le=_LATEST_MS)] = 0
    sources: Annotated[list[From], msgspec.Meta(min_length=1, max_length=_MOST_SOURCES)] | None = None


_ask = msgspec.json.Decoder(Ask)
REDRIVE_BODY = RequestBody(
    description="Who asks, and which letters are meant: those that meet all of it. At least one of reason, since and "
    "sources has to be there.",
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                type=OpenAPIType.OBJECT,
                required=["by"],
                properties={
                    "by": Schema(type=OpenAPIType.STRING, min_length=1, max_length=256),
                    "reason": Schema(type=OpenAPIType.STRING, min_length=1, max_length=64),
                    "since": Schema(type=OpenAPIType.INTEGER, minimum=0, maximum=_LATEST_MS),
                    "sources": Schema(
                        type=OpenAPIType.ARRAY,
                        min_items=1,
                        max_items=_MOST_SOURCES,
                        items=Schema(
                            type=OpenAPIType.OBJECT,
                            required=["topic", "partition", "offset"],
                            properties={
                                "topic": Schema(type=OpenAPIType.STRING, min_length=1, max_length=256),
                                "partition": Schema(type=OpenAPIType.INTEGER, minimum=-1, maximum=2**31 - 1),
                                "offset": Schema(type=OpenAPIType.INTEGER, minimum=-1, maximum=10**18 - 1),
                            },
                            additional_properties=False,
                        ),
                    ),
                },
                additional_properties=False,
            )
        )
    },
    required=True,
)


def dead_letter_routes(letters: Letters, redrives: Redrives, *, settings: Settings, guard: Guard) -> list[Any]:
    """The routes, behind the guard."""

    @get(
        "/v1/dead-letters",
        responses=documents(LetterPage, "A page of letters.") | documented(400, 401, 503),
        guards=[guard],
        tags=["dead letters"],
    )
    async def dead_letters(
        reason: Reason = None, since: Since = 0, after: After = None, limit: Limit = 50
    ) -> LetterPage:
        """Events that could not be answered, newest first: the newest 200 of each partition."""
        before = _place(after) if after else (math.inf, 0, 0)
        newest, are_all = await letters.newest_first()
        counts = Counter(held.letter.reason for held in newest)
        chosen = [
            held
            for held in newest
            if held.place < before and reason in (None, held.letter.reason) and held.letter.time >= since
        ]
        page = chosen[:limit]
        known = advice()
        return LetterPage(
            letters=[_told(held, redrives.of(held.letter), settings) for held in page],
            counts=dict(counts.most_common()),
            explained={code: known[code] for code in counts if code in known},
            are_all=are_all,
            may_redrive=settings.serve.redrive,
            running=redrives.running,
            next="_".join(map(str, page[-1].place)) if len(chosen) > limit else None,
        )

    @post(
        "/v1/dead-letters/redrive",
        status_code=200,
        responses=documents(Redriven, "What became of the letters that were chosen.")
        | documented(400, 401, 403, 409, 413, 415, 503),
        guards=[guard],
        tags=["dead letters"],
    )
    async def redrive(request: AnyRequest) -> Redriven:
        """Send the events of dead letters to their topic again, 100 a second, as `tastewave dead-letters redrive`.

        The answer comes at the end. A redrive goes on where nobody waits for it.
        """
        if not settings.serve.redrive:
            raise SwitchedOff("set TASTEWAVE_SERVE_REDRIVE=true, or run `tastewave dead-letters redrive`")
        asked = await read_body(request, _ask)
        if asked.reason is None and asked.sources is None and not asked.since:
            raise BadRequest("say which letters: give reason, since or sources")
        sources = (
            None
            if asked.sources is None
            else frozenset(Source(one.topic, one.partition, one.offset) for one in asked.sources)
        )
        choice = Choice(reason=asked.reason, since_ms=asked.since, sources=sources)
        return await redrives.run(choice, by=asked.by)

    return [dead_letters, redrive]


def _told(held: Held, run: Run | None, settings: Settings) -> Letter:
    letter = held.letter
    return Letter(
        time=letter.time,
        reason=letter.reason,
        message=settings.redacted(letter.message),
        source=From(letter.source_topic, letter.source_partition, letter.source_offset),
        attempts=letter.attempts,
        release=letter.release,
        key=None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        track_id=held.track_id,
        user_id=held.user_id,
        truncated=letter.truncated,
        redriven_at=run.at if run else None,
        redriven_by=run.by if run else None,
    )


def _place(text: str) -> tuple[int, int, int]:
    try:
        time, partition, offset = map(int, text.split("_"))
    except ValueError:
        raise BadRequest("after is no `next` of a page") from None
    return time, partition, offset
