"""The whole path with nothing faked: events on Kafka, a worker process, answers in Redis, dead letters."""

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile

from models.contract import (
    LIVE_KEY,
    TRACKS_FEATURES,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    track_key,
    workers_key,
)
from models.events import TrackFeatures, TrackUploaded, encode_event
from models.release import MANIFEST, Release, load_release, release_id
from stream.audio.sandbox import GUARDS
from stream.store.workers import WorkerReport, reports
from tests.platform.clock import now_ms, until
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback with the test's folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


FORMATS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm")


def test_every_format_reaches_the_cache_and_the_topics(platform: Platform, web: str) -> None:
    files = [write_music(platform.folder / f"track{suffix}") for suffix in FORMATS]
    platform.start_worker()
    events = [platform.upload(file.as_uri(), title=file.stem, artist_id="a1") for file in files]
    events.append(platform.upload(f"{web}/track.mp3", title="over the web"))
    answers = [platform.wait_for(event) for event in events]
    for event, answer in zip(events, answers, strict=True):
        assert answer.status in ("tagged", "abstained"), (event.uri, answer)
        assert (answer.genre is not None) == (answer.status == "tagged")
        assert 0 <= answer.confidence <= 1
        assert len(answer.genres) == len(answer.tags) == platform.settings.worker.top_k
        assert (answer.title, answer.release) == (event.title, platform.release)
        assert np.linalg.norm(answer.embedding) == pytest.approx(1.0, abs=1e-5)
        assert event.uploaded_at <= answer.tagged_at <= now_ms()
    platform.settled()
    until(lambda: platform.lag() == 0)
    assert platform.output().keys() == {event.track_id for event in events}
    features = [msgspec.msgpack.decode(record.value, type=TrackFeatures) for record in platform.read(TRACKS_FEATURES)]
    assert {feature.track_id for feature in features} == {event.track_id for event in events}
    for feature in features:
        (window,) = feature.windows["msd"]
        assert len(window.max_pool) == 2 * 753
        assert len(window.taggram_mean) == len(window.taggram_spread) == 2 * 50
    assert platform.redis.hget(LIVE_KEY, "release") == platform.release.encode()
    assert platform.dead_letters() == []
    assert "release.demonstration" in platform.worker_log()
    status, scraped = platform.health("/metrics")
    assert status == 200
    for stage in ("fetch", "queue", "decode", "log_mel", "network", "encoder", "genre", "store"):
        assert f'tastewave_stage_seconds_count{{stage="{stage}"}} {len(events)}.0' in scraped
    assert f'release="{platform.release}"' in scraped
    for guard in GUARDS:
        assert f'tastewave_guard{{guard="{guard}"}} 1.0' in scraped

    def told() -> list[WorkerReport]:
        held = reports(platform.redis.hgetall(workers_key()))
        return [one for one in held if sum(one.done.values()) == len(events) and not one.problems and not one.lag]

    (report,) = until(told)
    assert (report.role, report.release, report.dead_letters) == ("tracks", platform.release, {})
    assert report.processes > 0
    platform.workers[0].terminate()
    platform.workers[0].wait(30)
    assert not platform.redis.exists(workers_key())


def test_damage_is_told_in_the_log_and_in_a_metric_and_a_file_that_is_mostly_damaged_fails(platform: Platform) -> None:
    intact = write_music(platform.folder / "intact.flac", seconds=30).read_bytes()
    little, much = bytearray(intact), bytearray(intact)
    little[len(intact) // 2] ^= 8
    for place in range(len(intact) // 4, len(intact), 1000):
        much[place] ^= 8
    (platform.folder / "little.flac").write_bytes(little)
    (platform.folder / "much.flac").write_bytes(much)
    platform.start_worker()
    heard = platform.upload((platform.folder / "little.flac").as_uri())
    failed = platform.upload((platform.folder / "much.flac").as_uri())
    assert platform.wait_for(heard).status != "failed"
    answer = platform.wait_for(failed)
    assert answer.reason == "damaged", platform.worker_log()[-3000:]
    until(lambda: "track.damaged" in platform.worker_log())  # told once the features are on their topic
    scraped = platform.health("/metrics")[1]
    (lost,) = [line for line in scraped.splitlines() if line.startswith("tastewave_lost_audio_seconds_total ")]
    assert 0.05 < float(lost.split()[1]) < 3
    (told,) = [line for line in platform.worker_log().splitlines() if "track.damaged" in line]
    assert heard.track_id in told


def test_what_cannot_be_tagged_is_a_dead_letter_with_its_reason_and_its_neighbours_are_tagged(
    platform: Platform, web: str
) -> None:
    good = write_music(platform.folder / "good.wav")
    (platform.folder / "text.mp3").write_text("not music at all\n" * 100)
    (platform.folder / "empty.mp3").touch()
    write_music(platform.folder / "short.wav", seconds=1.0)
    soundfile.write(platform.folder / "silent.flac", np.zeros(22_050 * 5, np.float32), 22_050)
    platform.start_worker()
    reasons = {
        platform.upload((platform.folder / "text.mp3").as_uri()).track_id: "not_audio",
        platform.upload((platform.folder / "empty.mp3").as_uri()).track_id: "not_audio",
        platform.upload((platform.folder / "short.wav").as_uri()).track_id: "too_short",
        platform.upload((platform.folder / "silent.flac").as_uri()).track_id: "silent",
        platform.upload(f"{web}/missing.mp3").track_id: "not_found",
        platform.upload((platform.folder / "missing.wav").as_uri()).track_id: "not_found",
        platform.upload("gopher://example.invalid/song").track_id: "refused_uri",
        platform.upload("file:///etc/hostname").track_id: "refused_uri",
    }
    malformed = {
        b"{not json": "malformed_event",
        b'{"track_id": "no more"}': "malformed_event",
        None: "malformed_event",
    }
    for value in malformed:
        platform.send(value)
    ahead = platform.upload(good.as_uri(), at=now_ms() + 3_600_000)
    neighbours = [platform.upload(good.as_uri()) for _ in range(3)]
    for event in neighbours:
        assert platform.wait_for(event).status != "failed"
    platform.settled()
    letters = platform.dead_letters()
    assert len(letters) == len(reasons) + len(malformed) + 1
    found = {letter["value"]: letter for letter in letters}
    for value, reason in malformed.items():
        assert found[value]["reason"] == reason
    for letter in letters:
        assert letter["source.topic"] == platform.settings.topics.named(TRACKS_UPLOADED)
        assert letter["message"]
        assert letter["release"] == platform.release
    assert found[encode_event(ahead)]["reason"] == "future_event"
    assert platform.held(ahead.track_id) is None
    for track_id, reason in reasons.items():
        held = platform.held(track_id)
        assert (held.status, held.reason) == ("failed", reason)
        assert [letter["reason"] for letter in letters if letter["key"] == track_id.encode()] == [reason]
    assert platform.output().keys() == {*reasons, *(event.track_id for event in neighbours)}


def test_a_redelivered_event_costs_no_inference_and_is_published_again(platform: Platform) -> None:
    file = write_music(platform.folder / "track.wav")
    platform.start_worker()
    event = platform.upload(file.as_uri())
    first = platform.wait_for(event)
    file.unlink()  # a second fetch would fail
    platform.send(encode_event(event), key=event.track_id.encode())
    platform.settled()
    assert len(platform.read(TRACKS_TAGGED)) == 2
    assert [json.loads(record.value)["tagged_at"] for record in platform.read(TRACKS_TAGGED)] == [first.tagged_at] * 2
    assert len(platform.read(TRACKS_FEATURES)) == 1
    assert platform.dead_letters() == []


def test_an_older_event_after_a_newer_one_changes_nothing(platform: Platform) -> None:
    newer, older = (
        write_music(platform.folder / "newer.wav", seed=1),
        write_music(platform.folder / "older.wav", seed=2),
    )
    platform.start_worker()
    at = now_ms()
    event = platform.upload(newer.as_uri(), track_id="t1", at=at, title="newer")
    first = platform.wait_for(event)
    platform.upload(older.as_uri(), track_id="t1", at=at - 1000, title="older")
    platform.settled()
    assert len(platform.read(TRACKS_TAGGED)) == 2
    assert platform.output() == {"t1": first}


def test_two_events_of_one_track_at_once_end_on_the_later_one(platform: Platform) -> None:
    file = write_music(platform.folder / "track.wav")
    at = now_ms() - 1000
    events = [platform.upload(file.as_uri(), track_id="t1", at=at + number, title=str(number)) for number in range(6)]
    platform.start_worker(tracks_in_hand="8")
    assert platform.wait_for(events[-1]).title == "5"
    platform.settled()
    assert platform.output()["t1"].title == "5"
    last = msgspec.msgpack.decode(platform.read(TRACKS_FEATURES)[-1].value, type=TrackFeatures)
    assert last.title == "5"  # a new release answers the upload that stands


def test_of_two_uploads_of_one_time_that_of_the_greater_id_stands_whatever_their_order(platform: Platform) -> None:
    at = now_ms()
    files = {
        event_id: write_music(platform.folder / f"{event_id}.wav", seed=seed) for seed, event_id in enumerate("ab")
    }
    platform.start_worker()
    for track_id in ("ab", "ba"):
        for event_id in track_id:
            event = TrackUploaded(
                event_id=event_id, track_id=track_id, uri=files[event_id].as_uri(), uploaded_at=at, title=event_id
            )
            platform.send(encode_event(event), key=track_id.encode())
    platform.settled()
    assert {track_id: (answer.event_id, answer.title) for track_id, answer in platform.output().items()} == {
        "ab": ("b", "b"),
        "ba": ("b", "b"),
    }
    content = hashlib.sha256(files["b"].read_bytes()).hexdigest()
    assert {track_id: one.content_hash for track_id, one in features(platform)[-1].items()} == {
        "ab": content,
        "ba": content,
    }
    assert platform.dead_letters() == []


def features(platform: Platform) -> list[dict[str, TrackFeatures]]:
    """What the features topic holds for each track, after each of its records."""
    held, states = {}, []
    for record in platform.read(TRACKS_FEATURES):
        held[record.key.decode()] = msgspec.msgpack.decode(record.value, type=TrackFeatures)
        states.append(dict(held))
    return states


def release_of_both_networks(folder: Path) -> Release:
    """The shipped release, but its workers run msd and mtt."""
    shipped = load_release()
    shutil.copytree(shipped.folder, folder)
    configuration = msgspec.structs.replace(shipped.configuration, run=("msd", "mtt"))
    manifest = msgspec.structs.replace(
        shipped.manifest, configuration=configuration, release_id=release_id(configuration, shipped.manifest.files)
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return load_release(folder)


def test_a_second_release_publishes_the_features_of_a_network_that_the_first_did_not_run(platform: Platform) -> None:
    assert load_release().configuration.run == ("msd",)
    both = release_of_both_networks(platform.folder / "both")
    event = platform.upload(write_music(platform.folder / "track.wav", seconds=4).as_uri())
    platform.start_worker()
    platform.wait_for(event)
    platform.settled()
    platform.start_worker(release=str(both.folder))
    until(lambda: platform.redis.exists(track_key(both.release_id, event.track_id)))
    until(lambda: len(platform.read(TRACKS_FEATURES)) == 2)
    first, second = (state[event.track_id] for state in features(platform))
    assert first.windows.keys() == first.networks.keys() == {"msd"}
    assert second.windows.keys() == second.networks.keys() == {"msd", "mtt"}
    assert second.windows["msd"] == first.windows["msd"]
    assert second.networks["msd"] == first.networks["msd"] != second.networks["mtt"]
    again = platform.upload(event.uri, track_id=event.track_id)  # the same content, for both releases
    platform.wait_for(again)
    until(
        lambda: platform.redis.hget(track_key(both.release_id, event.track_id), "event_id") == again.event_id.encode()
    )
    until(lambda: platform.lag(1) == 0)
    platform.settled()
    last = features(platform)[-1][event.track_id]
    assert last.networks == second.networks
    assert (last.event_time, last.event_id) == (again.uploaded_at, again.event_id)


def test_a_good_answer_outlives_a_failed_upload_of_its_track(platform: Platform) -> None:
    file = write_music(platform.folder / "track.wav")
    platform.start_worker()
    event = platform.upload(file.as_uri(), track_id="t1")
    first = platform.wait_for(event)
    platform.upload((platform.folder / "missing.wav").as_uri(), track_id="t1", at=event.uploaded_at + 1)
    until(platform.dead_letters)
    assert platform.output() == {"t1": first}


@pytest.fixture
def fragile(environment: dict[str, str], redis_server, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose Redis the test may hurt."""
    platform = Platform(worker_environment(environment | {"TASTEWAVE_REDIS_URL": redis_server.url}, tmp_path), tmp_path)
    yield platform
    platform.close()


def test_while_redis_is_away_the_worker_waits_says_so_and_goes_on_by_itself(fragile: Platform, redis_server) -> None:
    file = write_music(fragile.folder / "track.wav", seconds=4)
    fragile.start_worker()
    fragile.until_ready()
    first = [fragile.upload(file.as_uri()) for _ in range(5)]
    for event in first:
        fragile.wait_for(event)
    redis_server.kill()
    later = [fragile.upload(file.as_uri()) for _ in range(5)]
    until(lambda: fragile.health("/ready")[0] == 503)
    assert "redis" in json.loads(fragile.health("/ready")[1])["problems"]
    assert fragile.health("/live")[0] == 200
    redis_server.restart()
    for event in first + later:
        assert fragile.wait_for(event).status != "failed"
    fragile.until_ready()
    until(lambda: fragile.lag() == 0)
    assert fragile.output().keys() == {event.track_id for event in first + later}
    assert fragile.dead_letters() == []


def test_a_worker_started_before_its_servers_have_topics_waits_for_them(environment, tmp_path: Path) -> None:
    platform = Platform(worker_environment(environment, tmp_path), tmp_path)
    platform.environment["TASTEWAVE_TOPIC_PREFIX"] += "late."
    try:
        platform.start_worker()
        until(lambda: (found := platform.health("/ready"))[0] == 503 and "topics create" in found[1] and found)
        platform.run("topics", "create")
        platform.until_ready()
        assert platform.workers[0].poll() is None
    finally:
        platform.close()


def test_every_key_of_a_platform_takes_its_prefix(environment: dict[str, str], tmp_path: Path) -> None:
    prefixed = environment | {"TASTEWAVE_REDIS_KEY_PREFIX": "eu.music", "TASTEWAVE_STORE_TAGGRAM": "true"}
    platform = Platform(worker_environment(prefixed, tmp_path), tmp_path)
    try:
        platform.start_worker()
        platform.until_ready()
        event = platform.upload(write_music(tmp_path / "track.wav", seconds=4).as_uri(), track_id="t1")
        platform.wait_for(event)
        platform.settled()
        keys = {key.decode() for key in platform.redis.scan_iter()}
        (health,) = {key for key in keys if ":health:" in key}
        assert health.startswith("eu.music:health:")
        assert keys - {health} == {
            "eu.music:live",
            "eu.music:releases",
            "eu.music:workers",
            f"eu.music:{platform.release}:track:{{t1}}",
            f"eu.music:{platform.release}:taggram:{{t1}}",
            "eu.music:features:{t1}",
        }
        assert "t1" in platform.run("get", "track", "t1")
        platform.run("release", "activate", platform.release)
        assert platform.redis.hget("eu.music:live", "release").decode() == platform.release
        assert not platform.redis.exists(LIVE_KEY)
    finally:
        platform.close()


def test_a_record_that_nothing_can_be_done_with_is_a_dead_letter_and_its_neighbours_are_tagged(
    platform: Platform,
) -> None:
    file = write_music(platform.folder / "track.wav", seconds=4)
    long = write_music(platform.folder / "long.flac", seconds=100)
    platform.start_worker(topic_max_bytes="5000")  # the features of one window, and not those of three
    platform.upload(long.as_uri(), track_id="poison")
    assert platform.wait_for(platform.upload(file.as_uri())).status != "failed"
    until(platform.dead_letters)
    (letter,) = platform.dead_letters()
    assert (letter["key"], letter["reason"], letter["attempts"]) == (b"poison", "internal", "3")
    until(lambda: platform.lag() == 0)


def test_a_forgotten_track_is_taken_back_and_answered_again_when_it_is_uploaded_later(platform: Platform) -> None:
    uri = write_music(platform.folder / "track.wav").as_uri()
    platform.start_worker()
    first = platform.upload(uri, track_id="t1", at=now_ms() - 2000)
    platform.wait_for(first)
    platform.redis.set("tw:forgotten-track:{t1}", first.uploaded_at + 1000)
    platform.upload(uri, track_id="t1", at=first.uploaded_at + 1)
    until(lambda: platform.held("t1") is None)
    platform.settled()
    key = f"{platform.release}:t1".encode()
    assert (platform.read(TRACKS_TAGGED)[-1].key, platform.read(TRACKS_TAGGED)[-1].value) == (key, None)
    assert (platform.read(TRACKS_FEATURES)[-1].key, platform.read(TRACKS_FEATURES)[-1].value) == (b"t1", None)
    assert 'outcome="forgotten"' in platform.health("/metrics")[1]
    platform.wait_for(platform.upload(uri, track_id="t1", at=first.uploaded_at + 1001))
    platform.settled()
    assert platform.output().keys() == {"t1"}
    assert platform.read(TRACKS_FEATURES)[-1].value is not None
    assert platform.dead_letters() == []
