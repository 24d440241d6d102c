"""The frame of the page: its states, the token, and what a stranger's text does in it."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.platform.page import PHONE, Site, Watched, answer

pytestmark = pytest.mark.servers


def test_a_track_that_is_answered_shows_up_live_and_html_in_its_id_is_shown_and_not_run(site: Site, page: Page) -> None:
    page.goto("/")
    expect(page).to_have_title("Now · tastewave")
    expect(page.get_by_text("Waiting for the next track")).to_be_visible()
    site.platform.put(answer("t1"), answer("<img src=x onerror=alert(1)>", title="<b>bold</b>"))
    expect(page.get_by_text("Title of t1")).to_be_visible()
    expect(page.get_by_text("<b>bold</b>")).to_be_visible()


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


def test_while_the_server_is_away_the_page_says_so_and_goes_on_by_itself(
    site: Site, tab: Callable[..., Watched]
) -> None:
    watched = tab(viewport=PHONE)
    watched.refused = [site.url]
    watched.page.goto("/")
    expect(watched.page.locator(".banner")).to_be_hidden()
    site.api.kill()
    expect(watched.page.get_by_text("Disconnected")).to_be_visible()
    site.api.restart()
    expect(watched.page.locator(".banner")).to_be_hidden()
    site.platform.put(answer("after"))
    expect(watched.page.get_by_text("Title of after")).to_be_visible()
