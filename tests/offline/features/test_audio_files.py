import functools
import os
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from models.errors import FetchFailed, NotFound, TooLarge
from offline.features.audio_files import opened, shown, shown_message, stamp


def content(uri: str, *, max_bytes: int = 1000) -> bytes:
    with opened(uri, max_bytes=max_bytes) as file:
        return file.read()


def test_a_file_is_read_by_its_path_its_address_and_from_other_file_systems(tmp_path):
    path = tmp_path / "with space.wav"
    path.write_bytes(b"music")
    with fsspec.open("memory://bucket/a.wav", "wb") as file:
        file.write(b"other music")  # type: ignore[attr-defined]
    assert content(str(path)) == content(path.as_uri()) == b"music"
    assert content("memory://bucket/a.wav") == b"other music"


def test_the_stamp_changes_with_size_and_time(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"music")
    first = stamp(str(path))
    assert first == stamp(path.as_uri()) is not None
    os.utime(path, ns=(1, 1))
    second = stamp(str(path))
    path.write_bytes(b"musics")
    os.utime(path, ns=(1, 1))
    assert len({first, second, stamp(str(path))}) == 3
    assert stamp(str(tmp_path / "missing.wav")) is None
    assert stamp("nosuch://a/b.wav") is None


@pytest.mark.parametrize("place", ["here", "memory"])
def test_no_more_is_read_than_is_allowed(tmp_path, place):
    uri = f"{tmp_path}/a.wav" if place == "here" else "memory://large/a.wav"
    with fsspec.open(uri, "wb") as file:
        file.write(b"x" * 1000)  # type: ignore[attr-defined]
    assert len(content(uri, max_bytes=1000)) == 1000
    with pytest.raises(TooLarge, match="more than 0 MB; raise max_mb"):
        content(uri, max_bytes=999)


@pytest.mark.parametrize("uri", ["/nowhere/a.wav", "memory://nowhere/a.wav"])
def test_a_file_that_is_not_there_is_not_found(uri):
    with pytest.raises(NotFound, match="is not there; mend the catalogue"):
        content(uri)


def test_what_cannot_be_read_as_a_file_is_one_sentence(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for uri in (str(tmp_path), str(tmp_path / "pipe")):
        with pytest.raises(FetchFailed, match="is no regular file"):
            content(uri)
    with pytest.raises(FetchFailed, match="cannot be read"):
        content("nosuch://a/b.wav")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of tmp_path on loopback."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_on_the_web_is_read_and_its_change_is_seen(tmp_path: Path, web: str):
    path, uri = tmp_path / "a.wav", f"{web}/a.wav"
    path.write_bytes(b"music" * 100)
    os.utime(path, (10**9, 10**9))
    first = stamp(uri)
    assert content(uri) == b"music" * 100
    os.utime(path, (10**9 + 5, 10**9 + 5))
    second = stamp(uri)
    assert None not in (first, second)
    assert first != second
    with pytest.raises(TooLarge):
        content(uri, max_bytes=499)
    with pytest.raises(NotFound):
        content(f"{web}/b.wav")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/music/what?.wav", r"/music/what\?\.wav"),
        ("file:///music/a%3F.wav", r"file:///music/a%3F\.wav"),
        ("s3://bucket/mail@home/a.mp3", r"s3://bucket/mail@home/a\.mp3"),
        ("https://[::1]:8080/a.mp3", r"https://\[::1\]:8080/a\.mp3"),
        ("https://host/a.mp3?X-Amz-Signature=secret", r"https://host/a\.mp3\?sha256=[0-9a-f]{12}"),
        ("https://ann:secret@host:443/a.mp3#secret", r"https://host:443/a\.mp3\?sha256=[0-9a-f]{12}"),
        ("ftp://ann:sec/ret@host/a.mp3", r"ftp://\(withheld\)\?sha256=[0-9a-f]{12}"),
        ("zip://a.mp3::https://host/a.zip?sig=secret", r"zip://a\.mp3::https://host/a\.zip\?sha256=[0-9a-f]{12}"),
    ],
)
def test_a_file_is_shown_without_what_may_be_a_key_to_it(uri, expected):
    assert re.fullmatch(expected, shown(uri))


def test_files_that_a_query_tells_apart_stay_apart():
    names = [shown(f"https://host/get?id={number}") for number in range(100)]
    assert len(set(names)) == 100
    assert shown("https://host/get?id=7") == names[7]


def test_what_a_library_says_of_a_signed_address_is_shown_without_the_signature():
    uri = "https://ann:word@host/a.mp3?sig=secret&e=1"
    message = f"{uri} cannot be read (404, url='https://host/a.mp3?sig=secret&e=1'; sig=secret&e=1 has ended); run this"
    assert shown_message(message, uri) == (
        "https://host/a.mp3 cannot be read (404, url='https://host/a.mp3'; ... has ended); run this"
    )
    assert shown_message("/a?b.mp3 is not there", "/a?b.mp3") == "/a?b.mp3 is not there"
