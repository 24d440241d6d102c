"""`tastewave release rescore` beside real workers, through kills, later uploads and forgotten tracks."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from models.contract import TRACKS_FEATURES, TRACKS_TAGGED, track_answer, track_fields, track_key
from models.events import TrackFeatures, TrackTagged, encode_event
from models.release import load_release
from models.rescoring import Rescorer
from stream.store.tracks import PublishedFeatures
from tests.models.test_rescoring import hearing_all
from tests.platform import taste
from tests.platform.clock import now_ms, until
from tests.platform.commands import TASTEWAVE
from tests.platform.encoders import write_filterbank
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An old and a new release of the same encoders, under other names of the block and with another genre head."""
    folder = tmp_path_factory.mktemp("releases")
    encoder = write_filterbank(folder / "encoder", dim=taste.DIM, window_s=10.0)
    block = write_filterbank(folder / "block", dim=7, unit_norm=False, seed=3)
    old = taste.write_release(folder / "old", None, audio_encoder=encoder, blocks={"any": block})
    new = taste.write_release(
        folder / "new", None, audio_encoder=encoder, blocks={"foreign": block}, head=hearing_all()
    )
    return old, new


@pytest.fixture
def make(
    environment: dict[str, str], releases: tuple[Path, Path], tmp_path: Path
) -> Iterator[Callable[[int], Platform]]:
    """Makes a platform on one of the releases; all share the topics and the Redis of the test."""
    platforms: list[Platform] = []

    def make(number: int, **settings: str) -> Platform:
        folder = tmp_path / f"platform-{len(platforms)}"
        folder.mkdir()
        own = environment | {"TASTEWAVE_RELEASE": str(releases[number]), "COLUMNS": "200"} | settings
        platforms.append(Platform(worker_environment(own, tmp_path), folder))
        return platforms[-1]

    yield make
    for platform in platforms:
        platform.close()


def rescore(platform: Platform, *options: str) -> str:
    """Run it, and return what it printed, with single spaces."""
    return " ".join(platform.run("release", "rescore", *options).split())


def near(one: TrackTagged, other: TrackTagged, *, within: float = 1e-3) -> bool:
    """Whether two answers are the same but for when they were given, with numbers that differ by no more than that."""
    if one.embedding is None or other.embedding is None:
        return False
    first, second = (
        msgspec.to_builtins(answer) | {"tagged_at": 0, "tags": dict(answer.tags)} for answer in (one, other)
    )
    first["genres"], second["genres"] = (dict(answer["genres"]) for answer in (first, second))
    for name in ("confidence", "genres", "tags", "embedding"):
        if first.pop(name) != pytest.approx(second.pop(name), abs=within, rel=0.0):
            return False
    return first == second


def test_rescored_answers_are_those_of_the_workers_of_the_new_release(make, tmp_path: Path) -> None:
    old, new = make(0), make(1)
    files = [write_music(tmp_path / f"{s}.wav", seconds=s, seed=s) for s in (5, 70)]
    old.start_worker()
    events = [
        old.upload(file.as_uri(), track_id=f"t{at}", title=f"title {at}", artist_id="a")
        for at, file in enumerate(files)
    ]
    for event in events:
        old.wait_for(event)
    old.settled()
    assert "answered 2 tracks" in rescore(new)
    rescored = {event.track_id: new.held(event.track_id) for event in events}
    assert {record.key: record.value for record in new.read(TRACKS_TAGGED) if new.release.encode() in record.key} == {
        f"{new.release}:{track_id}".encode(): encode_event(answer) for track_id, answer in rescored.items()
    }
    for event in events:
        new.redis.delete(track_key(new.release, event.track_id))
    new.start_worker()
    for event in events:
        heard = new.wait_for(event)
        assert near(rescored[event.track_id], heard), (rescored[event.track_id], heard)
    new.settled()
    assert "nothing came since the last run" in rescore(new)
    later = old.upload(files[1].as_uri(), track_id="t0")
    old.wait_for(later)
    heard = new.wait_for(later)
    old.settled()
    assert "answered before" in rescore(new, "--from-start")
    assert new.held("t0") == heard  # by the worker, of the later upload


# --- with features that nobody heard


def made_up(platform: Platform, count: int, **changes: object) -> list[TrackFeatures]:
    """Features of tracks as workers of the platform's release publish them; each hears something else."""
    import numpy as np

    from models.events import WindowFeatures

    release, rng = load_release(platform.settings.worker.release), np.random.default_rng(0)
    made = []
    for at in range(count):
        taggram = rng.random((2, 50)).astype("<f2") / 4
        window = WindowFeatures(
            start_ms=0, max_pool=bytes(1506), taggram_mean=taggram[0].tobytes(), taggram_spread=taggram[1].tobytes(),
            patches=10,
        )  # fmt: skip
        dims = {release.encoder_hashes_by_feature[name]: d for name, d in release.embedding_widths().items()}
        made.append(
            TrackFeatures(
                track_id=f"t{at}", front_end=release.hearing, content_hash=f"{at}", networks=release.network_hashes,
                windows={"msd": (window,)}, event_time=now_ms() - 60_000, event_id=f"e{at}",
                vectors={hash_: (rng.random(dim).astype("<f4").tobytes(),) for hash_, dim in dims.items()},
            )
        )  # fmt: skip
    return [msgspec.structs.replace(one, **changes) for one in made]


def publish(platform: Platform, tracks: list[TrackFeatures]) -> None:
    topic = platform.settings.topics.named(TRACKS_FEATURES)
    for track in tracks:
        platform.producer.send(topic, key=track.track_id.encode(), value=msgspec.msgpack.encode(track))
    platform.producer.flush(30)


def published(platform: Platform) -> dict[str, bytes | None]:
    """The last value of each track of the release on the output topic."""
    prefix = f"{platform.release}:".encode()
    records = [record for record in platform.read(TRACKS_TAGGED) if record.key.startswith(prefix)]
    return {record.key.removeprefix(prefix).decode(): record.value for record in records}


def test_a_run_that_was_killed_goes_on_and_nothing_is_missing_or_wrong(make) -> None:
    platform = make(1)
    tracks = made_up(platform, 300)
    publish(platform, tracks)
    for kill_at in (40, 120):
        running = subprocess.Popen(
            [TASTEWAVE, "release", "rescore", "--rate", "200"], env=platform.environment, stderr=subprocess.DEVNULL
        )
        until(lambda kill_at=kill_at: len(platform.tracks_held()) >= kill_at)
        running.send_signal(signal.SIGKILL)
        running.wait()
    before = len(platform.tracks_held())
    assert 120 <= before < 300
    printed = rescore(platform)
    counts = {what: int(count) for what, count in re.findall(r"(answered|answered before) (\d+) tracks", printed)}
    assert 300 - before <= counts["answered"] < 300 - 60  # it did not begin anew
    assert counts.get("answered before", 0) <= 40  # of the part that the kill cut
    release = load_release(platform.settings.worker.release)
    expected = {one.track_id: one for one in Rescorer(release, top_k=5)(tracks, tagged_at=0)}
    held = {track.track_id: platform.held(track.track_id) for track in tracks}
    for name, one in held.items():
        fields = {field.encode(): value for field, value in track_fields(expected[name]).items()}
        answer = track_answer(name, platform.release, fields)
        assert near(one, answer, within=1e-5), (one, answer)  # some processors round by the size of a part
    assert published(platform) == {name: encode_event(one) for name, one in held.items()}


def test_later_answers_stand_forgotten_tracks_stay_away_and_what_has_to_be_heard_is_listed(
    make, tmp_path: Path
) -> None:
    platform = make(1)
    (later, forgotten, failed, deaf, damaged, plain) = tracks = made_up(platform, 6)
    answer = TrackTagged(
        track_id=later.track_id, release=platform.release, status="tagged", event_time=later.event_time + 1,
        event_id="z", tagged_at=1, genre="jazz",
    )  # fmt: skip
    failure = msgspec.structs.replace(answer, track_id=failed.track_id, status="failed", genre=None, reason="not_found")
    for one in (answer, failure):
        platform.redis.hset(track_key(platform.release, one.track_id), mapping=track_fields(one))
    tracks[3] = deaf = msgspec.structs.replace(deaf, networks={"mtt": "0123456789ab"}, windows={})
    publish(platform, tracks)
    platform.run("forget", "track", forgotten.track_id, "--yes")
    publish(platform, [forgotten])  # as a worker that was hearing it then would, until it looks
    topic = platform.settings.topics.named(TRACKS_FEATURES)
    platform.producer.send(topic, key=damaged.track_id.encode(), value=b"no msgpack").get(30)
    listed = tmp_path / "lacking.jsonl"
    printed = rescore(platform, "--lacking", str(listed))
    assert platform.held(later.track_id) == answer
    assert platform.held(forgotten.track_id) is None
    assert platform.held(failed.track_id).status != "failed"  # the good answer to the upload before
    assert platform.held(plain.track_id)
    hash_ = load_release(platform.settings.worker.release).network_hashes["msd"]
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert {line["track_id"]: line["what"] for line in lines} == {
        deaf.track_id: f"network msd {hash_}",
        damaged.track_id: "features that are whole",
    }
    assert "2 tracks have to be heard" in printed
    assert f"lacking network msd {hash_}" in printed
    last = published(platform)
    assert last.pop(forgotten.track_id, None) is None
    assert last == {
        name: encode_event(platform.held(name)) for name in (later.track_id, failed.track_id, plain.track_id)
    }


def test_features_of_an_earlier_version_are_answered_by_what_redis_knows_of_their_upload(make) -> None:
    platform = make(1)
    told, other_audio, _ = tracks = made_up(platform, 3, event_time=None, event_id=None)
    live = "0123456789ab"
    platform.redis.hset("tw:live", "release", live)
    answer = TrackTagged(
        track_id=told.track_id, release=live, status="abstained", event_time=now_ms() - 5, event_id="e", tagged_at=1,
        title="a title", artist_id="an artist",
    )  # fmt: skip
    platform.redis.hset(track_key(live, told.track_id), mapping=track_fields(answer))
    for track, content in ((told, told.content_hash), (other_audio, "another")):
        mark = PublishedFeatures(
            event_time=answer.event_time, event_id="e", content=f"{track.front_end}:{content}", networks={}
        )
        platform.redis.set(f"tw:features:{{{track.track_id}}}", msgspec.json.encode(mark))
    publish(platform, tracks)
    assert "lacking the upload that they are of 2 tracks" in rescore(platform)
    held = platform.held(told.track_id)
    assert (held.event_time, held.event_id, held.title, held.artist_id) == (
        answer.event_time,
        "e",
        "a title",
        "an artist",
    )
    assert platform.tracks_held() == {told.track_id}
