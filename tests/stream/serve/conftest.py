"""The HTTP API in the process of the test, on a real Redis."""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httpx
import pytest
import redis
import redis.asyncio

from models.contract import LIVE_KEY, track_fields, track_key, user_fields, user_key
from models.events import TrackTagged, UserEmbedded
from stream.reader.reader import AnswerReader
from stream.serve.site import Site
from stream.settings import load_settings

RELEASE = "0123456789ab"


class Held:
    """A Redis with a live release, to put answers into."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.activate(RELEASE)

    def activate(self, release: str) -> None:
        self.client.hset(LIVE_KEY, mapping={"contract": 1, "release": release, "since": 1_795_653_950_626})

    def put(self, answer: TrackTagged | UserEmbedded) -> None:
        if isinstance(answer, TrackTagged):
            key, fields = track_key(answer.release, answer.track_id), track_fields(answer)
        else:
            key, fields = user_key(answer.release, answer.user_id), user_fields(answer)
        self.client.hset(key, mapping=fields)  # type: ignore[arg-type]


@pytest.fixture
def held(environment: dict[str, str]) -> Held:
    return Held(environment["TASTEWAVE_REDIS_URL"])


@pytest.fixture
async def api(held: Held, environment: dict[str, str]) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Makes a client of the API; keyword arguments are settings, without serve_ those of that section."""
    client = redis.asyncio.Redis.from_url(held.url, protocol=2)

    given = {name.removeprefix("TASTEWAVE_").lower(): value for name, value in environment.items()}

    def of(**values: Any) -> httpx.AsyncClient:
        settings = load_settings(
            **given | {name if name in given else f"serve_{name}": value for name, value in values.items()}
        )
        site = Site(settings, reader=AnswerReader(client), feed=cast(Any, None))
        return httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://127.0.0.1")

    yield of
    await client.aclose()
