"""The views of a track and of a user, in a browser."""

import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from models.contract import TRACKS_UPLOADED, encode_taggram, history_key, taggram_key
from models.events import Listen, TrackTagged, TrackUploaded, UserEmbedded, encode_event
from models.history import history_member
from models.musicnn import TAGS
from models.release import load_release
from tests.platform.clock import now_ms, until
from tests.platform.page import Site, Watched, answer

pytestmark = pytest.mark.servers
RELEASE = load_release().release_id  # whose tags and thresholds the server can read
LENGTH_S = 214  # heard from 0:20, 1:32 and 2:43 on, 30 s each
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"TASTEWAVE_SERVE_AUDIO_ROOTS": str(tmp_path_factory.mktemp("music"))}


def track(track_id: str, angle: float = 0.0, **given: Any) -> TrackTagged:
    place = tuple(struct.unpack("<2f", struct.pack("<2f", np.cos(angle), np.sin(angle))))
    return msgspec.structs.replace(answer(track_id, embedding=place, **given), release=RELEASE)


def user(user_id: str, angle: float) -> UserEmbedded:
    return UserEmbedded(
        user_id=user_id,
        release=RELEASE,
        embedding=(float(np.cos(angle)), float(np.sin(angle))),
        source="history",
        listens=2,
        event_time=now_ms(),
        revision=1,
        refreshed_at=now_ms(),
    )


@pytest.fixture(scope="module")
def heard(site: Site, site_settings: dict[str, str]) -> Site:
    """The site with tracks and users of the release that ships."""
    platform, song = site.platform, Path(site_settings["TASTEWAVE_SERVE_AUDIO_ROOTS"]) / "song.wav"
    with wave.open(str(song), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(b"\x80" * 8000 * LENGTH_S)
    upload = TrackUploaded(event_id="e", track_id="song", uri=song.as_uri(), uploaded_at=now_ms())
    platform.publish(TRACKS_UPLOADED, "song", encode_event(upload))
    platform.activate(RELEASE)
    taggram = np.full((30, 50), 0.01, np.float32)
    taggram[:, TAGS["msd"].index("jazz")] = 0.6
    taggram[10:20, TAGS["msd"].index("sad")] = 0.8
    platform.redis.set(taggram_key(RELEASE, "song"), encode_taggram(taggram))
    platform.put(
        track("song", 0.0, duration_ms=1000 * LENGTH_S),
        track("near", 0.3, title=None),
        track(NASTY, 0.6, title="<b>bold</b>", genre="blues", genres=(("<i>", 0.9),)),
        track("unsure", 2.0, status="abstained", genre=None, confidence=0.16, genres=(("jazz", 0.16), ("blues", 0.1))),
        track("fixed", 2.5, status="corrected", genre="reggae", corrected_at=now_ms()),
        msgspec.structs.replace(track("bad", status="failed", reason="too_short", genres=()), embedding=None),
        user("ann", 0.1),
        user(NASTY, 0.2),
    )
    platform.redis.zadd(history_key("ann"), {bytes(12): 0})
    listen(site, Listen(event_id="e", user_id="ann", track_id=NASTY, kind="like", at=now_ms()))
    until(lambda: site.api.get("/v1/release")[1]["searched"] == RELEASE)
    until(lambda: site.api.get("/v1/tracks/song/explanation")[1]["has_audio"])
    return site


def listen(site: Site, one: Listen) -> None:
    site.platform.redis.zadd(history_key(one.user_id), {history_member(one): 0})


PIXEL = """([canvas, x, y]) => {
    const ratio = devicePixelRatio;
    return [...canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data.slice(0, 3)];
}"""
HEAT = "share => import('/page/colours.js').then(({heat}) => heat(share))"


def test_the_heat_map_has_the_cells_of_the_taggram_and_a_click_plays_that_moment(heard: Site, page: Page) -> None:
    page.goto("/#/track/song")
    names = page.locator(".heat-names li")
    expect(names).to_have_count(15)
    assert names.nth(0).inner_text().split() == ["jazz", "60", "%"]
    assert names.nth(1).inner_text().split() == ["sad", "27", "%"]
    canvas = page.locator(".heat-field canvas")
    width = canvas.evaluate("canvas => canvas.clientWidth")
    each = (width - 2 * 8) / 30  # two gaps of 8 px between the windows
    column = [patch * each + patch // 10 * 8 + each / 2 for patch in range(30)]
    handle = canvas.element_handle()
    for row, patch, share in ((0, 0, 0.6), (0, 29, 0.6), (1, 9, 0.01), (1, 10, 0.8), (1, 19, 0.8), (1, 20, 0.01)):
        colour = page.evaluate(PIXEL, [handle, column[patch], 20 * row + 10])
        expected = page.evaluate(HEAT, round(share * 255) / 255 / 0.8)  # the scale ends at 80 %
        assert colour == expected, (row, patch)

    canvas.hover(position={"x": column[10], "y": 30})
    expect(page.locator(".heat-said")).to_have_text("sad 80\u202f% at 1:32–1:35")
    canvas.focus()
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator(".heat-said")).to_have_text("jazz 60\u202f% at 1:35–1:38")
    expect(page.locator(".heat-cursor")).to_be_hidden()
    canvas.click(position={"x": column[20], "y": 30})
    audio = page.locator("audio")
    page.wait_for_function("audio => audio.currentTime > 163", arg=audio.element_handle())
    assert audio.evaluate("audio => audio.currentTime") < 173
    expect(page.locator(".heat-cursor")).to_be_visible()
    page.get_by_role("button", name="Show all 50 tags").click()
    expect(names).to_have_count(50)


def test_a_track_shows_its_state_its_neighbours_and_html_as_text(heard: Site, tab: Callable[..., Watched]) -> None:
    watched = tab()
    watched.refused = ["/v1/tracks/nobody"]
    page = watched.page
    page.goto("/#/track/unsure")
    expect(page.get_by_text("its best genre is less probable than the release asks for")).to_be_visible()
    bars = page.locator(".genre-bars li")
    expect(bars.nth(0)).to_contain_text("jazz16\u202f%")
    line, bar = (page.locator(f".genre-bars .{part}").first.bounding_box() for part in ("least", "fill"))
    assert line
    assert bar
    assert line["x"] + 2 > bar["x"] + bar["width"]  # 17 % stands behind 16 %
    page.goto("/#/track/fixed")
    expect(page.get_by_text("says an editor; the release's best guess was jazz")).to_be_visible()
    page.goto("/#/track/bad")
    expect(page.get_by_text("It was not heard: too_short")).to_be_visible()
    page.goto("/#/track/nobody")
    expect(page.get_by_text("The live release knows no such track")).to_be_visible()
    heard.platform.put(track("nobody", 1.0))
    expect(page.get_by_role("heading", name="Title of nobody")).to_be_visible()  # as soon as it is answered
    page.goto("/#/track/song")
    page.get_by_role("button", name="Show the users").click()
    expect(page.get_by_role("link", name="ann")).to_be_visible()
    expect(page.get_by_role("region", name="Similar tracks").get_by_role("link").first).to_have_text("near")
    page.get_by_role("link", name="<b>bold</b>").click()
    expect(page.get_by_role("heading", name="<b>bold</b>")).to_be_visible()
    expect(page.get_by_role("main").get_by_text(NASTY).first).to_be_visible()
    expect(page.get_by_text("TASTEWAVE_STORE_TAGGRAM")).to_be_visible()


def test_a_user_shows_listens_and_offers_and_follows_events(heard: Site, page: Page) -> None:
    page.goto("/#/user")
    page.get_by_label("Id of the user").fill("ann")
    page.keyboard.press("Enter")
    listens = page.get_by_role("region", name="Recent listens").locator("tbody tr")
    expect(listens).to_have_count(1)
    expect(listens).to_contain_text("<b>bold</b>")
    offers = page.get_by_role("region", name="Tracks that would be offered").locator("tbody tr")
    expect(offers.nth(0)).to_contain_text("Title of song")
    assert "<b>bold</b>" not in page.get_by_role("region", name="Tracks that would be offered").inner_text()
    page.get_by_label("Genre of what is offered").select_option("reggae")
    expect(offers).to_have_count(1)
    expect(offers).to_contain_text("Title of fixed")

    played = {"kind": "play", "played_ms": 9_000, "duration_ms": 200_000}
    listen(heard, Listen(event_id="e", user_id="ann", track_id="near", at=now_ms(), **played))
    heard.platform.put(user("ann", 0.3))
    expect(listens).to_have_count(2)
    expect(listens.nth(0)).to_contain_text("played0:09 of 3:20")
    expect(listens.nth(0)).to_contain_text("turned away")
    page.goto(f"/#/user/{NASTY.replace(' ', '%20')}")
    expect(page.get_by_role("heading", name=NASTY)).to_be_visible()
