"""What holds for every view: axe-core finds nothing serious, and it fits a phone."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.platform.page import PHONE, Site, Watched, answer

pytestmark = pytest.mark.servers
ADDRESSES = {"": "#/", "map": "#/map?track=t1", "try": "#/try"}
"""An address of each view, by the name of the view."""


@pytest.fixture
def filled(site: Site) -> Site:
    """A site with a few answers."""
    site.platform.put(*(answer(f"t{number}") for number in range(3)))
    return site


def settled(page: Page, address: str) -> None:
    page.goto(f"/{address}")
    page.locator("main h1").first.wait_for()
    page.wait_for_function("!document.querySelector('main .state.loading')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_view_and_each_fits_a_phone(
    filled: Site, tab: Callable[..., Watched], scheme: str
) -> None:
    page = tab(viewport=PHONE, color_scheme=scheme).page
    page.goto("/")
    views = page.evaluate("import('/page/views.js').then(({ VIEWS }) => Object.keys(VIEWS))")
    assert set(views) == ADDRESSES.keys()
    for name, address in ADDRESSES.items():
        settled(page, address)
        found = Axe().run(page).response["violations"]
        serious = {one["id"]: one["nodes"] for one in found if one["impact"] in ("serious", "critical")}
        assert serious == {}, name
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], name
