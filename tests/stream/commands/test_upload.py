import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from models.errors import SettingsError
from models.events import TrackTagged, TrackUploaded, encode_event
from stream.broker.dead_letters import dead_letter
from stream.commands.upload import Upload, find_audio, plan_upload, settle


@pytest.fixture
def music(tmp_path: Path) -> Path:
    for name in ("b.mp3", "a.FLAC", "notes.txt", "sub/deep/c.ogg", "cover.jpg", "100% #1?.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder.mp3").mkdir()
    return tmp_path


def test_a_folder_stands_for_the_audio_in_it_at_any_depth(music: Path) -> None:
    names = [path.relative_to(music).as_posix() for path in find_audio([str(music)])]
    assert names == ["100% #1?.wav", "a.FLAC", "b.mp3", "sub/deep/c.ogg"]


def test_a_file_that_is_named_needs_no_audio_suffix_and_a_url_is_taken_as_it_is(music: Path) -> None:
    url = "https://example.org/a%20b.mp3?token=1"
    assert find_audio([str(music / "notes.txt"), url]) == [music / "notes.txt", url]


def test_a_relative_path_becomes_absolute(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(music)
    assert find_audio(["b.mp3"]) == [music / "b.mp3"]


def test_what_is_not_there_and_an_empty_folder_are_refused(music: Path) -> None:
    os.mkfifo(music / "fifo")
    for name in ("nothing.mp3", "fifo"):
        with pytest.raises(SettingsError, match=name):
            find_audio([str(music / "b.mp3"), str(music / name)])
    with pytest.raises(SettingsError, match="no audio"):
        find_audio([str(music / "folder.mp3")])


def test_a_file_has_its_id_from_its_bytes_its_title_from_its_name_and_a_uri_that_comes_back(music: Path) -> None:
    path = music / "100% #1?.wav"
    planned = plan_upload(path)
    assert planned.track_id == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert planned.title == "100% #1?"
    assert planned.uri.startswith("file:///")
    assert unquote(urlsplit(planned.uri).path) == str(path)
    (music / "copy.wav").write_bytes(path.read_bytes())
    copy = plan_upload(music / "copy.wav")
    assert copy.track_id == planned.track_id
    assert copy.event_id != planned.event_id


def test_a_url_has_its_id_from_itself_and_its_title_from_its_path() -> None:
    url = "https://example.org/music/My%20Song.mp3?token=1"
    planned = plan_upload(url)
    assert (planned.uri, planned.title) == (url, "My Song")
    assert planned.track_id == hashlib.sha256(url.encode()).hexdigest()[:16]
    assert plan_upload("https://example.org/").title is None
    assert plan_upload("https://[").title is None  # its dead letter will say what is wrong with it


def test_a_name_that_is_no_unicode_can_be_uploaded(music: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.mp3"))
    path.write_bytes(b"x")
    planned = plan_upload(path)
    assert planned.title == "caf�"
    assert planned.uri.endswith("/caf%E9.mp3")


@pytest.mark.parametrize("options", [{"track_id": "x" * 257}, {"track_id": "\udc80"}, {"track_id": ""}])
def test_what_would_be_no_event_of_the_contract_is_refused_before_anything_is_sent(
    music: Path, options: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match="cannot be uploaded"):
        plan_upload(music / "b.mp3", **options)
    with pytest.raises(SettingsError, match="cannot be uploaded"):
        plan_upload("https://example.org/" + "x" * 9000)


# --- following


def waiting(*uploads: Upload) -> dict[str, list[Upload]]:
    by_track: dict[str, list[Upload]] = {}
    for upload in uploads:
        by_track.setdefault(upload.track_id, []).append(upload)
    return by_track


def published(track_id: str = "t1", event_id: str = "e1", event_time: int = 1000) -> Upload:
    return Upload(track_id=track_id, uri="file:///a", event_id=event_id, event_time=event_time, status="published")


def answer(**changed: object) -> SimpleNamespace:
    tagged = TrackTagged(
        track_id="t1",
        release="0123456789ab",
        status="tagged",
        event_time=1000,
        event_id="e1",
        tagged_at=1234,
        genre="jazz",
        confidence=0.8,
        tags=(("sax", 0.9),),
    )
    value = encode_event(msgspec.structs.replace(tagged, **changed))
    return SimpleNamespace(topic="eu.tastewave.tracks.tagged", value=value, key=b"k", headers=[], timestamp=0)


def failure(event_id: str = "e1", track_id: str = "t1") -> SimpleNamespace:
    event = TrackUploaded(event_id=event_id, track_id=track_id, uri="file:///a", uploaded_at=1_700_000_000_000)
    source = SimpleNamespace(
        topic="u", partition=0, offset=0, timestamp=0, key=b"k", value=encode_event(event), headers=[]
    )
    key, value, headers = dead_letter(
        source, reason="not_found", message="gone", attempts=1, release="r", max_bytes=10_000
    )
    return SimpleNamespace(topic="eu.tastewave.dead-letter", key=key, value=value, headers=headers, timestamp=0)


def test_an_answer_settles_its_upload_with_what_it_says() -> None:
    upload, other = published(), published("t2", "e2")
    assert settle(waiting(upload, other), answer()) == [upload]
    assert (upload.status, upload.genre, upload.confidence, upload.latency_ms) == ("tagged", "jazz", 0.8, 234)
    assert upload.tags == (("sax", 0.9),)
    assert other.status == "published"


def test_an_abstention_is_an_answer() -> None:
    upload = published()
    settle(waiting(upload), answer(status="abstained", genre=None))
    assert (upload.status, upload.genre, upload.reason) == ("abstained", None, None)


def test_an_answer_to_an_earlier_event_settles_nothing_and_one_to_a_later_event_does() -> None:
    upload = published(event_time=1000)
    assert settle(waiting(upload), answer(event_time=999)) == []
    assert settle(waiting(upload), answer(event_time=5000, tagged_at=5100)) == [upload]
    assert upload.latency_ms == 100


def test_of_two_uploads_of_one_time_the_answer_to_that_of_the_greater_id_settles_both() -> None:
    first, second = published(event_id="e1"), published(event_id="e2")
    assert settle(waiting(first, second), answer(event_id="e1")) == [first]
    assert settle(waiting(first, second), answer(event_id="e2")) == [first, second]


def test_one_answer_settles_all_earlier_uploads_of_its_track() -> None:
    first, second = published(event_id="e1", event_time=1000), published(event_id="e2", event_time=2000)
    assert settle(waiting(first, second), answer(event_time=1000)) == [first]
    assert settle(waiting(second), answer(event_time=2000, event_id="e2")) == [second]


def test_a_dead_letter_settles_the_upload_of_its_event_and_no_other() -> None:
    first, second = published(event_id="e1"), published(event_id="e2")
    assert settle(waiting(first, second), failure("e2")) == [second]
    assert (second.status, second.reason, second.message) == ("failed", "not_found", "gone")
    assert first.status == "published"


def test_answers_and_dead_letters_of_another_release_settle_nothing() -> None:
    upload = published()
    for record, release in ((answer(), "0123456789ab"), (failure(), "r")):
        assert settle(waiting(upload), record, release="ffffffffffff") == []
        assert upload.status == "published"
        assert settle(waiting(published()), record, release=release) != []


def test_a_failed_answer_is_left_to_its_dead_letter() -> None:
    upload = published()
    assert settle(waiting(upload), answer(status="failed", reason="not_found", genre=None)) == []


@pytest.mark.parametrize("topic", ["tastewave.tracks.tagged", "tastewave.dead-letter"])
@pytest.mark.parametrize("value", [None, b"", b"junk", b"{}"])
def test_records_of_other_makers_are_passed_over(topic: str, value: bytes | None) -> None:
    record = SimpleNamespace(topic=topic, value=value, key=None, headers=[], timestamp=0)
    assert settle(waiting(published()), record) == []
