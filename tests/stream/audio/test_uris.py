import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.audio.uris import shown_uri


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://music.example/a.mp3", "https://music.example/a.mp3"),
        ("https://music.example:8443/a.mp3?token=c4nary", "https://music.example:8443/a.mp3"),
        ("https://music.example/a.mp3#c4nary", "https://music.example/a.mp3"),
        ("https://music.example?token=c4nary", "https://music.example"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("s3://music/a b/c.mp3", "s3://music/a b/c.mp3"),
        ("file:///srv/me@home/100%40.mp3", "file:///srv/me@home/100%40.mp3"),
        ("file:///srv/a\nb.mp3", "file:///srv/a?b.mp3"),
        ("a.mp3?token=c4nary", "a URI without scheme://"),
        ("//user:c4nary@host/a", "a URI without scheme://"),
        ("zip://a::https://user:c4nary@host/a", "zip://(withheld, as it may hold a password)"),
        ("zip::https://user:c4nary@host/a", "a URI without scheme://"),
    ],
)
def test_what_is_no_secret_of_a_uri_is_shown(uri: str, shown: str) -> None:
    assert shown_uri(uri) == shown


@pytest.mark.parametrize("password", ["c4nary", "c4/nary", "c4?nary", "c4#nary", "c4@nary", "c4:nary", "c4 nary"])
@pytest.mark.parametrize("at", ["@", "%40"])
@pytest.mark.parametrize(
    "start", ["https://user:", "http://:", "https:///user:", "s3://key:", "file://user:", "HTTP://"]
)
def test_no_password_is_shown_however_badly_it_is_written(start: str, password: str, at: str) -> None:
    shown = shown_uri(f"{start}{password}{at}music.example/a.mp3")
    assert "c4" not in shown
    assert "nary" not in shown


@given(st.text(), st.text(max_size=20))
def test_what_is_shown_is_one_short_line(start: str, end: str) -> None:
    shown = shown_uri(f"{start}://{end}")
    assert len(shown) < 250
    assert shown.isprintable()
