"""A browser for all tests of the page, a served site for each module, and a tab for each test."""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import Servers
from tests.platform.page import Site, Watched, served

CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 20_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. It ends with the last test of this folder: meanwhile Playwright keeps an event loop running."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def site_settings() -> dict[str, str]:
    """TASTEWAVE_* of the site, for a module to replace."""
    return {}


@pytest.fixture(scope="module")
def site(servers: Servers, site_settings: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Site]:
    """A served site with an empty Redis and topics of its own, shared by the tests of a module."""
    with redis.Redis.from_url(servers.redis.url) as client:
        client.flushall()
    environment = {
        "TASTEWAVE_KAFKA_BROKERS": servers.kafka.brokers,
        "TASTEWAVE_REDIS_URL": servers.redis.url,
        "TASTEWAVE_TOPIC_PREFIX": f"{re.sub('[^a-z]+', '-', request.module.__name__)}-{os.urandom(3).hex()}.",
    }
    with served(environment | site_settings) as made:
        yield made


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Callable[..., Watched]]:
    """Opens tabs of the site; keyword arguments are those of Playwright's new_page."""
    opened: list[Watched] = []

    def tab(**options: Any) -> Watched:
        opened.append(Watched(browser, url=site.url, **options))
        opened[-1].page.set_default_timeout(WAIT_MS)
        return opened[-1]

    yield tab
    for one in opened:
        one.close()


@pytest.fixture
def page(tab: Callable[..., Watched]) -> Page:
    """A tab, as Playwright's Page."""
    return tab().page
