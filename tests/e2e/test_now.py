"""The frame of the page, its states, and its first view: what is heard now."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Page, expect

from models.contract import workers_key
from stream.store.workers import WorkerReport
from tests.platform.clock import now_ms
from tests.platform.page import PHONE, RELEASE, Site, Watched, answer

pytestmark = pytest.mark.servers
HTML = "<img src=x onerror=alert(1)>"


def say(site: Site, worker: str, **given: object) -> None:
    """Say in Redis what a worker would."""
    facts: dict[str, Any] = {
        "role": "tracks", "release": RELEASE, "started_at": now_ms() - 180_000, "at": now_ms(), "problems": {},
        "lag": 1234, "in_hand": 4, "processes": 2, "restarts": 1, "done": {"tagged": 100}, "dead_letters": {},
    }  # fmt: skip
    report = WorkerReport(worker=worker, **facts | given)
    site.platform.redis.hset(workers_key(), worker, msgspec.json.encode(report))


def test_tracks_show_up_live_with_what_was_heard_and_html_in_them_is_shown_and_not_run(site: Site, page: Page) -> None:
    site.platform.put(answer("before"))
    page.goto("/")
    expect(page).to_have_title("Now · tastewave")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    site.platform.put(
        answer(HTML, title="<b>bold</b>", tags=((HTML, 0.5),)),
        answer("unsure", status="abstained", genre=None, confidence=0.41),
        answer("bad", status="failed", genre=None, confidence=None, tags=(), reason="too_short", title=None),
    )
    expect(rows).to_have_count(4)
    before = rows.filter(has_text="Title of before")
    for told in ("jazz", "83\u202f%", "piano", "340\u202fms", "ann"):
        expect(before).to_contain_text(told)
    expect(rows.filter(has_text="<b>bold</b>").get_by_text(HTML)).to_be_visible()
    expect(rows.filter(has_text="Title of unsure")).to_contain_text("abstained")
    expect(rows.filter(has=page.get_by_role("link", name="bad"))).to_contain_text("failed: too_short")
    site.platform.put(answer("before", genre="blues", tagged_at=now_ms() + 10))
    expect(before).to_contain_text("blues")
    expect(rows.first).to_contain_text("Title of before")
    expect(rows).to_have_count(4)


def test_workers_say_how_they_are_and_why_they_are_not_ready(site: Site, page: Page) -> None:
    page.goto("/")
    expect(page.get_by_text("No worker has spoken")).to_be_visible()
    expect(page.get_by_text("None since these workers started")).to_be_visible()
    say(site, "well", dead_letters={"not_audio": 12, HTML: 1})
    say(site, "waiting", problems={"redis": f"away {HTML}"})
    say(site, "dead", at=now_ms() - 60_000)
    workers = page.locator(".workers li")
    expect(workers).to_have_count(3)
    expect(workers.get_by_text("ready", exact=True)).to_have_count(1)
    expect(workers.filter(has_text="not ready")).to_contain_text(f"redis away {HTML}")
    expect(workers.filter(has_text="silent")).to_contain_text("1\u202fmin")
    expect(workers.filter(has_text="not ready")).to_contain_text("1,234 waiting · 4 in hand · 2 processes · 1 restart")
    expect(page.locator(".reasons")).to_contain_text("not_audio12")
    expect(page.locator(".figures")).to_contain_text("2,468 events")  # of those that are not silent


def test_an_address_without_a_view_says_so_and_every_view_can_be_reached_by_the_keyboard(page: Page) -> None:
    page.goto("/#/no<b>such")
    expect(page.get_by_text("This page has no view “no<b>such”.")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Now")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_title("Now · tastewave")
    expect(page.get_by_role("link", name="Now")).to_have_attribute("aria-current", "page")


def test_what_is_useful_is_painted_within_a_second(page: Page) -> None:
    painted = []
    for _ in range(3):  # other tests use the processors too
        page.goto("/")
        page.locator(".figures .value").first.wait_for()
        painted.append(page.evaluate("performance.now()"))
    assert min(painted) < 1000


def test_while_the_server_is_away_the_page_says_so_and_goes_on_by_itself(
    site: Site, tab: Callable[..., Watched]
) -> None:
    watched = tab(viewport=PHONE)
    watched.refused = [site.url]
    watched.page.goto("/")
    expect(watched.page.locator(".banner")).to_be_hidden()
    site.api.kill()
    expect(watched.page.get_by_text("Disconnected")).to_be_visible()
    expect(watched.page.get_by_role("alert")).to_contain_text("tastewave serve does not answer")
    site.api.restart()
    expect(watched.page.locator(".banner")).to_be_hidden()
    site.platform.put(answer("after"))
    expect(watched.page.get_by_text("Title of after")).to_be_visible()
    expect(watched.page.get_by_role("alert")).to_have_count(0)
