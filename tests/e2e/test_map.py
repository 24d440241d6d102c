"""The taste map in a browser: 50,000 points, a listener who moves, and tracks that come."""

import math
import re
from collections.abc import Callable

import msgspec
import pytest
from playwright.sync_api import Page, expect

from models.events import UserEmbedded
from tests.platform.clock import now_ms, until
from tests.platform.page import RELEASE, Site, Watched, answer

pytestmark = pytest.mark.servers
MANY = 50_000
GENRES = ["jazz", "rock", "classical", "metal"]
LEAST_FRAMES_S = 30

# Pans in a circle, and counts the frames of a second.
PAN = """async () => {
  const map = document.querySelector(".map-canvas");
  const { left, top } = map.getBoundingClientRect();
  const point = (kind, x, y) =>
    map.dispatchEvent(new PointerEvent(kind, { pointerId: 1, clientX: left + x, clientY: top + y, bubbles: true }));
  map.setPointerCapture = () => {};
  point("pointerdown", 400, 300);
  const began = performance.now();
  let frames = 0;
  while (performance.now() - began < 1000) {
    await new Promise(requestAnimationFrame);
    frames++;
    point("pointermove", 400 + 100 * Math.sin(frames / 10), 300 + 100 * Math.cos(frames / 10));
  }
  point("pointerup", 400, 300);
  return frames / ((performance.now() - began) / 1000);
}"""
# How many pixels of a canvas differ from its first one.
DRAWN = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint32Array(data.buffer);
  return pixels.filter((pixel) => pixel !== pixels[0]).length;
}"""


def place(angle: float, height: float = 0.0) -> tuple[float, ...]:
    """A place of unit norm."""
    return (math.cos(angle) * (1 - height**2) ** 0.5, math.sin(angle) * (1 - height**2) ** 0.5, height, 0.0)


def drawn(page: Page, canvas: str) -> int:
    return page.locator(canvas).evaluate(DRAWN)


def put_user(site: Site, angle: float) -> None:
    user = UserEmbedded(
        user_id="ann", release=RELEASE, embedding=place(angle), source="history", listens=3, event_time=now_ms(),
        revision=1, refreshed_at=now_ms(),
    )  # fmt: skip
    site.platform.put(user)


def test_the_map_fills_as_tracks_come_and_a_track_is_found_by_hand_and_by_name(site: Site, page: Page) -> None:
    page.goto("/#/map")
    expect(page.get_by_text("No track has a place in taste space yet.")).to_be_visible()
    site.platform.put(answer("west", embedding=place(math.pi), title="<b>West</b>", genre="blues"))
    expect(page.get_by_text("No track has a place")).to_be_hidden()
    site.platform.put(
        answer("north", embedding=place(math.pi / 2), title="North"),
        answer("east", embedding=place(0.0), title="East"),
        answer("nowhere", embedding=None, title="Nowhere"),
    )
    expect(page.get_by_role("button", name="jazz 2")).to_be_visible()
    expect(page.get_by_role("button", name="blues 1")).to_be_visible()

    expect(page.get_by_text("of the variance. 3 tracks.")).to_be_visible()  # drawn anew, with all of them

    page.get_by_label("Search").fill("<b>w")
    page.get_by_role("button", name="<b>West</b>").click()
    expect(page.get_by_role("link", name="<b>West</b>")).to_have_attribute("href", "#/track/west")
    page.goto("/#/map?track=east")
    expect(page.get_by_role("link", name="East")).to_have_attribute("href", "#/track/east")
    canvas = page.locator(".map-canvas")
    box = canvas.bounding_box()
    assert box

    def tip_in_the_middle() -> str:
        for aside in (9, 3):
            page.mouse.move(box["x"] + box["width"] / 2 + aside, box["y"] + box["height"] / 2)
        return page.locator(".map-tip").text_content() or ""

    until(lambda: re.search("East.*jazz", tip_in_the_middle()))  # after its flight there
    page.goto("/#/map?track=nowhere")
    expect(page.get_by_text("nowhere has no place in taste space.")).to_be_visible()


def test_fifty_thousand_points_are_panned_at_thirty_frames_a_second_and_a_listener_moves(
    site: Site, tab: Callable[..., Watched]
) -> None:
    watched = tab()
    watched.refused = ["/v1/tracks/t[0-9]+"]  # of these tracks the map alone knows
    page = watched.page
    one = answer("one", tags=(), genres=())
    site.platform.put_many(
        msgspec.structs.replace(
            one, track_id=f"t{number}", genre=GENRES[number % 4],
            embedding=place(number % 4 + math.sin(number) / 2, math.cos(7 * number) / 2),
        )
        for number in range(MANY)
    )  # fmt: skip
    put_user(site, 0.0)
    until(lambda: site.api.get("/v1/release")[1]["tracks"] >= MANY)
    page.goto("/#/map?user=ann")
    expect(page.get_by_text("50,000 of 50,003 tracks are drawn")).to_be_visible()
    until(lambda: page.evaluate(PAN) >= LEAST_FRAMES_S)  # other tests share the cores

    everything = drawn(page, ".map-points")
    page.get_by_role("button", name="rock").click()
    expect(page.get_by_role("button", name="rock")).to_have_attribute("aria-pressed", "false")
    until(lambda: 0.4 * everything < drawn(page, ".map-points") < 0.9 * everything)
    page.get_by_role("button", name="None").click()
    until(lambda: drawn(page, ".map-points") == 0)
    page.get_by_role("button", name="All", exact=True).click()

    listener = page.get_by_text(re.compile("^ann at"))
    before, marks = listener.text_content(), drawn(page, ".map-above")
    put_user(site, 1.5)
    expect(listener).not_to_have_text(before or "")
    until(lambda: drawn(page, ".map-above") > marks)  # the trail

    page.locator(".map-canvas").focus()
    page.keyboard.press("0")
    for key in ("+", "ArrowRight", "ArrowLeft", "-"):
        page.keyboard.press(key)
    expect(page.locator(".map-title")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/track/t[0-9]+$"))
