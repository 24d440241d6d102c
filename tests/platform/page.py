"""The page as a browser shows it: a served site on real servers, cheap answers, and tabs that are watched."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from models.events import TrackTagged
from tests.platform.clock import now_ms
from tests.platform.serve import Api, Publisher, publisher

RELEASE = "0123456789ab"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class Site(NamedTuple):
    """A running `tastewave serve`, and a publisher that puts answers where workers put them."""

    api: Api
    platform: Publisher

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}"


@contextmanager
def served(environment: Mapping[str, str]) -> Iterator[Site]:
    """A site on topics of its own, with a live release that has no answers yet."""
    with publisher(environment) as platform:
        platform.activate(RELEASE)
        with Api(platform.environment) as api:
            yield Site(api, platform)


def answer(track_id: str, **given: Any) -> TrackTagged:
    """A tagged track that was uploaded 340 ms ago; what is given replaces what it has."""
    facts: dict[str, Any] = {
        "status": "tagged", "genre": "jazz", "confidence": 0.83, "genres": (("jazz", 0.83), ("blues", 0.09)),
        "tags": (("jazz", 0.81), ("piano", 0.62), ("soft", 0.31)), "title": f"Title of {track_id}", "artist_id": "ann",
        "event_id": "e", "tagged_at": now_ms(),
    }  # fmt: skip
    facts |= {"event_time": facts["tagged_at"] - 340} | given
    return TrackTagged(track_id=track_id, release=RELEASE, **facts)


class Watched:
    """A tab of the browser, and what must not happen in it.

    Attributes:
        page: of Playwright.
        refused: patterns of URLs of which a test expects that they are not answered with 200. The browser says so in
            its console.
    """

    def __init__(self, browser: Browser, *, url: str, **options: Any) -> None:
        self.page: Page = browser.new_page(base_url=url, **{"viewport": DESKTOP} | options)
        self.refused: list[str] = []
        self._wrong: list[tuple[str, str]] = []
        self._url = url
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._wrong.append(("page error", str(error))))
        self.page.on("request", self._look)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._wrong.append((message.location["url"], message.text))

    def _look(self, request: Request) -> None:
        if not request.url.startswith((f"{self._url}/", "data:", f"blob:{self._url}/")):
            self._wrong.append(("a request to elsewhere", request.url))

    def close(self) -> None:
        """Close the tab. Fails where something was wrong in it."""
        self.page.close()
        wrong = [
            (where, what)
            for where, what in self._wrong
            if not (what.startswith("Failed to load") and any(re.search(one, where) for one in self.refused))
        ]
        assert wrong == []
