"""A file that is dropped on the page is heard by a real worker, and the answer appears."""

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.platform.music import write_music
from tests.platform.page import Site, Watched
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  document.querySelector(".try-drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def site_settings(folder: Path) -> dict[str, str]:
    return {"TASTEWAVE_SERVE_UPLOADS": str(folder)}


@pytest.fixture
def worker(site: Site, folder: Path, tmp_path: Path) -> Iterator[Platform]:
    """A tracks worker that may read the folder."""
    environment = worker_environment(site.platform.environment, folder) | {"TASTEWAVE_POOL_SIZE": "1"}
    del environment["TASTEWAVE_SERVE_UPLOADS"]
    platform = Platform(environment, tmp_path)
    site.platform.activate(platform.release)
    platform.start_worker()
    yield platform
    platform.close()


def drop(page: Page, name: str, content: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def test_a_dropped_file_gets_its_genre_and_one_that_is_no_audio_its_reason(
    worker: Platform, page: Page, tmp_path: Path
) -> None:
    page.goto("/#/try")
    drop(page, "<img src=x onerror=alert(1)>.wav", write_music(tmp_path / "a.wav", seconds=3.2).read_bytes())
    drop(page, "text.mp3", b"no music at all\n" * 100)
    drop(page, "program.exe", b"x")
    expect(page.get_by_text("The name does not end like that of an audio file")).to_be_visible()
    expect(page.get_by_text("Waiting for the answer")).to_have_count(2)
    worker.until_ready()
    card = page.locator(".try-card", has_text="<img src=x onerror=alert(1)>.wav")
    expect(card.get_by_text("after the upload")).to_be_visible(timeout=60_000)
    expect(card.locator(".try-answer")).to_contain_text(" at ")
    expect(card.locator(".tag").first).to_be_visible()
    expect(card.get_by_role("link", name="See what was heard")).to_have_attribute(
        "href", re.compile("^#/track/[0-9a-f]{16}$")
    )
    expect(page.locator(".try-card", has_text="text.mp3")).to_contain_text("(not_audio)", timeout=60_000)


def test_a_file_may_be_chosen_by_the_keyboard_and_a_server_that_is_away_is_said(
    site: Site, tab: Callable[..., Watched], tmp_path: Path
) -> None:
    watched = tab()
    watched.refused = [site.url]
    page = watched.page
    page.goto("/#/try")
    chooser = page.get_by_label("Choose files")
    with page.expect_file_chooser() as chosen:
        chooser.press("Enter")
    site.api.kill()
    chosen.value.set_files(write_music(tmp_path / "a.wav", seconds=1))
    expect(page.get_by_text("The upload broke off")).to_be_visible()
    site.api.restart()
