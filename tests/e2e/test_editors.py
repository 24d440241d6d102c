"""Dead letters and Review: an engineer redrives, an editor corrects."""

import io
import json
import wave
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from models.contract import TRACKS_CORRECTED, TRACKS_UPLOADED
from models.events import TrackCorrected, decode_event
from tests.platform.clock import now_ms, until
from tests.platform.page import Site, Watched, answer

pytestmark = pytest.mark.servers
TOKEN = "0123456789abcdef"
HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def site_settings() -> dict[str, str]:
    return {
        "TASTEWAVE_SERVE_TOKEN": TOKEN, "TASTEWAVE_SERVE_REDRIVE": "true", "TASTEWAVE_SERVE_CORRECTIONS": "true"
    }  # fmt: skip


def sound() -> bytes:
    """Half a second of silence as WAV."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return written.getvalue()


def test_a_letter_is_looked_at_and_redriven(site: Site, tab: Callable[..., Watched]) -> None:
    watched = tab()
    page: Page = watched.page
    watched.refused = ["/v1/dead-letters"]  # without the token, and where Kafka is away
    page.goto("/#/dead-letters")
    page.get_by_role("textbox", name="Token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_text("No dead letters. Every event was answered.")).to_be_visible()

    now = now_ms()
    for number in range(3):
        site.platform.put_letter(number, at=now - number * 60_000, message=f"{HTML} is not there", partition=number)
    upload = f'{{"track_id": "{HTML}"}}'.encode()
    site.platform.put_letter(7, value=upload, reason="malformed_event", at=now - 7_200_000)
    letters = page.get_by_role("list", name="Letters").get_by_role("listitem")
    expect(letters).to_have_count(4)  # without a reload
    track = letters.last.get_by_role("link", name=HTML)
    expect(track).to_have_attribute("href", "#/track/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    page.get_by_label("Given up").select_option("Last hour")
    expect(letters).to_have_count(3)
    page.get_by_role("button", name="not_found").click()
    expect(page.get_by_text("The address answers, but the audio is not there.")).to_be_visible()
    letters.nth(1).get_by_role("button").click()
    expect(letters.nth(1)).to_contain_text("tastewave.tracks.uploaded, partition 1, offset 1")
    letters.nth(1).get_by_role("checkbox").check()
    page.get_by_role("button", name="Redrive …").click()
    dialog = page.get_by_role("dialog", name="Redrive 1 letter?")
    dialog.get_by_label("Your name").fill("ann")
    dialog.get_by_role("button", name="Redrive").click()
    expect(dialog.get_by_text("1 event sent again.")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(letters.nth(1)).to_contain_text("sent again")
    expect(letters.nth(0)).not_to_contain_text("sent again")
    assert [record.key for record in site.platform.read(TRACKS_UPLOADED)] == [b"t1"]
    lines = [json.loads(line) for line in site.api.log.read_text().splitlines() if line.startswith("{")]
    assert [line["by"] for line in lines if line["event"].startswith("dead_letters.")] == ["ann", "ann"]

    def is_away(route: Route) -> None:
        problem = {"type": "urn:tastewave:problem:kafka-away", "title": "t", "status": 503, "detail": f"Kafka: {HTML}"}
        route.fulfill(status=503, json=problem)

    page.route("**/v1/dead-letters?*", is_away, times=1)
    page.get_by_role("button", name="Reload").click()
    expect(page.get_by_role("alert")).to_contain_text(f"Kafka: {HTML}")
    page.get_by_role("button", name="Try again").click()
    expect(letters).to_have_count(3)


def test_a_correction_by_the_keyboard_shows_at_once_and_after_a_restart(site: Site, page: Page) -> None:
    genres = (("jazz", 0.3), ("blues", 0.2))
    site.platform.put(
        answer("sure", confidence=0.99),
        answer("unsure", confidence=0.4),
        answer("torn", status="abstained", genre=None, confidence=0.3, genres=genres, title=HTML),
        answer("failed", status="failed", genre=None, confidence=None, genres=(), tags=(), reason="silent"),
    )
    until(lambda: len(site.api.get("/v1/review")[1]["tracks"]) == 3)
    page.goto(f"/#token={TOKEN}")
    told_why = {"abstained_because": "tags", "has_audio": True}
    page.route("**/v1/tracks/torn/explanation", lambda route: route.fulfill(json=told_why))
    page.route("**/v1/tracks/torn/audio", lambda route: route.fulfill(body=sound()))
    page.goto("/#/review")
    queue = page.get_by_role("list", name="Queue").get_by_role("listitem")
    expect(queue).to_have_count(3)
    expect(page.get_by_role("heading", name=HTML)).to_be_visible()
    assert [text.split("\n")[0] for text in queue.all_inner_texts()] == [HTML, "Title of unsure", "Title of sure"]
    expect(page.get_by_text("the strongest tag names another kind of music")).to_be_visible()
    page.get_by_role("button", name="Listen").click()
    expect(page.locator("audio")).to_have_js_property("duration", 0.5)
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("heading", name=HTML).click()
    page.keyboard.press("2")
    expect(page.get_by_role("button", name="blues")).to_have_attribute("aria-pressed", "true")
    held: list[Route] = []
    page.route("**/v1/corrections", lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks it
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Title of unsure")).to_be_visible()
    expect(queue.nth(0)).to_contain_text("saving")  # before the server has answered
    expect(queue.nth(0)).to_contain_text("blues")
    held[0].continue_()
    expect(queue.nth(0)).to_contain_text("saved")
    page.keyboard.press("u")
    expect(page.get_by_role("heading", name=HTML)).to_be_visible()
    page.unroute("**/v1/corrections")
    page.get_by_label("Another genre").fill("dub")
    page.keyboard.press("Enter")
    expect(queue.nth(0)).to_contain_text("dub")
    expect(queue.nth(0)).to_contain_text("saved")
    said = [decode_event(record.value, TrackCorrected) for record in site.platform.read(TRACKS_CORRECTED)]
    assert [(one.track_id, one.genre, one.by) for one in said] == [("torn", "blues", "ann"), ("torn", "dub", "ann")]

    page.goto("about:blank")
    site.api.restart()
    page.goto("/#/review")
    expect(queue).to_have_count(2)
    expect(page.get_by_role("heading", name="Title of unsure")).to_be_visible()
    told = site.api.get("/v1/tracks/torn")[1]
    assert (told["status"], told["genre"]) == ("corrected", "dub")
