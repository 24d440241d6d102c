"""What holds for every view, with all that the page can do turned on: axe-core is content, and it fits a phone."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from models.contract import encode_taggram, history_key, taggram_key
from models.events import Listen, UserEmbedded
from models.history import history_member
from models.musicnn import TAGS
from models.release import load_release
from tests.platform.clock import now_ms
from tests.platform.page import PHONE, Site, Watched, answer

pytestmark = pytest.mark.servers
TOKEN = "0123456789abcdef"
RELEASE = load_release().release_id  # whose tags the server can read
ADDRESSES = {
    "": "#/", "map": "#/map?track=t1", "track": "#/track/t1", "user": "#/user/ann", "try": "#/try",
    "dead-letters": "#/dead-letters", "review": "#/review",
}  # fmt: skip
"""An address of each view, by the name of the view."""


@pytest.fixture(scope="module")
def site_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = str(tmp_path_factory.mktemp("audio"))
    return {
        "TASTEWAVE_SERVE_TOKEN": TOKEN, "TASTEWAVE_SERVE_REDRIVE": "true", "TASTEWAVE_SERVE_CORRECTIONS": "true",
        "TASTEWAVE_SERVE_UPLOADS": folder, "TASTEWAVE_SERVE_AUDIO_ROOTS": folder, "TASTEWAVE_FILE_ROOTS": folder,
    }  # fmt: skip


@pytest.fixture(scope="module")
def filled(site: Site) -> Site:
    """A site where every view has something to show."""
    platform, now = site.platform, now_ms()
    platform.activate(RELEASE)
    tracks = [answer(f"t{number}", embedding=(1.0, 0.0), duration_ms=30_000) for number in range(3)]
    tracks.append(answer("unsure", status="abstained", genre=None, confidence=0.4, embedding=(0.0, 1.0)))
    ann = UserEmbedded(
        user_id="ann", release=RELEASE, embedding=(1.0, 0.0), source="history", listens=1, event_time=now, revision=1,
        refreshed_at=now,
    )  # fmt: skip
    listen = Listen(event_id="e", user_id="ann", track_id="t2", kind="play", at=now, played_ms=9000, duration_ms=9000)
    platform.put(*(msgspec.structs.replace(one, release=RELEASE) for one in tracks), ann)
    platform.redis.set(taggram_key(RELEASE, "t1"), encode_taggram(np.full((10, len(TAGS)), 0.5, np.float32)))
    platform.redis.zadd(history_key("ann"), {b"\x00" * 12: 0, history_member(listen): now})
    platform.put_letter(0, at=now)
    return site


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view_and_each_fits_a_phone(
    filled: Site, tab: Callable[..., Watched], scheme: str
) -> None:
    watched = tab(viewport=PHONE, color_scheme=scheme)
    watched.refused = ["/audio$"]  # of which there is none
    page = watched.page
    page.goto(f"/#token={TOKEN}")
    views = page.evaluate("import('/page/views.js').then(({ VIEWS }) => Object.keys(VIEWS))")
    assert set(views) == ADDRESSES.keys()
    for name, address in ADDRESSES.items():
        page.goto(f"/{address}")
        page.locator("main h1").first.wait_for()
        expect(page.locator("main .state.loading")).to_have_count(0)
        assert page.locator("main .state.error").all_inner_texts() == [], name
        found = Axe().run(page).response["violations"]
        serious = {one["id"]: one["nodes"] for one in found if one["impact"] in ("serious", "critical")}
        assert serious == {}, name
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], name
