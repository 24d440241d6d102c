"""A platform that is watched: spans, metrics and every query of the dashboard, on real processes and a Prometheus."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from models.contract import DEAD_LETTER, LISTENS, TRACKS_TAGGED, TRACKS_UPLOADED
from models.events import Listen, TrackUploaded, encode_event
from stream.commands.parity import Report, _write_metrics
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.clock import now_ms, until
from tests.platform.listens import TRACKS, ListenPlatform
from tests.platform.music import write_music
from tests.platform.observability import OBSERVABILITY, Collector, Prometheus
from tests.platform.serve import Api
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers
HEARD, BROKEN, ASKED = ("aa" * 16, "ab" * 8), ("ba" * 16, "bb" * 8), ("ca" * 16, "cb" * 8)
"""Trace and span of two producers and of a client over HTTP."""


def traceparent(trace_id: str, span_id: str) -> str:
    return f"00-{trace_id}-{span_id}-01"


class Watched:
    """Workers of both roles and the API on one release, which have answered uploads, listens and requests."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self.collector = stack.enter_context(Collector())
        settings = worker_environment(environment | self.collector.environment, folder)
        self.uploads, self.listens = Platform(settings, folder), ListenPlatform(settings, folder / "listens")
        stack.callback(self.uploads.close)
        stack.callback(self.listens.close)
        self.listens.folder.mkdir()
        self.uploads.start_worker()
        self.listens.start_worker()
        given = {name: value for name, value in settings.items() if name.startswith(("TASTEWAVE_", "OTEL_"))}
        self.api = stack.enter_context(Api(given))
        (folder / "broken.mp3").write_text("not music at all\n" * 100)
        self.track = self._upload(write_music(folder / "track.wav"), HEARD)
        self.broken = self._upload(folder / "broken.mp3", BROKEN)
        self.origins = {f"{number:032x}": f"{number:016x}" for number in range(1, 31)}
        self._listen()
        for event in (self.track, self.broken):
            self.uploads.wait_for(event)
        self.listens.settled()
        path = f"/v1/tracks/{self.track.track_id}"
        assert self.api.get(path, traceparent=traceparent(*ASKED))[0] == 200
        until(lambda: self.uploads.lag() == self.listens.lag() == 0)

    def _upload(self, file: Path, origin: tuple[str, str]) -> TrackUploaded:
        event = TrackUploaded(event_id="e", track_id=file.stem, uri=file.as_uri(), uploaded_at=now_ms())
        topic = self.uploads.settings.topics.named(TRACKS_UPLOADED)
        headers = [("traceparent", traceparent(*origin).encode())]
        self.uploads.producer.send(topic, encode_event(event), key=b"k", headers=headers).get(60)
        return event

    def _listen(self) -> None:
        topic = self.listens.settings.topics.named(LISTENS)
        for number, origin in enumerate(self.origins.items()):
            listen = Listen(event_id="e", user_id=f"u{number}", track_id=TRACKS[0], kind="like", at=now_ms())
            headers = [("traceparent", traceparent(*origin).encode())]
            self.listens.producer.send(topic, encode_event(listen), key=listen.user_id.encode(), headers=headers)
        self.listens.producer.flush(60)


@pytest.fixture
def watched(environment: dict[str, str], tower_of: TowerOf, tmp_path: Path) -> Iterator[Watched]:
    release = taste.write_release(tmp_path / "release", tower_of(TRACKS[:30], history=20))
    with ExitStack() as stack:
        yield Watched(environment | {"TASTEWAVE_RELEASE": str(release)}, tmp_path, stack)


def test_a_platform_is_followed_by_its_spans_and_its_metrics(watched: Watched, tmp_path: Path) -> None:
    assert_spans_of_uploads(watched)
    assert_spans_of_listens(watched)
    assert_span_of_the_request(watched)
    report = Report(release=watched.uploads.release, sampled=30, compared=30, differing=0, differences=())
    _write_metrics(report, tmp_path / "parity.prom")
    watched.collector.metrics = (tmp_path / "parity.prom").read_text()
    workers = [platform.health_address() for platform in (watched.uploads, watched.listens)]
    targets = {"tastewave": [*workers, f"127.0.0.1:{watched.api.port}"], "node": [watched.collector.address]}
    with Prometheus(targets) as prometheus:
        assert_metrics_follow_the_rules_of_prometheus(watched)
        assert_every_query_of_the_dashboard_has_data(prometheus)


def assert_spans_of_uploads(watched: Watched) -> None:
    collector, named = watched.collector, watched.uploads.settings.topics.named
    process, send = f"process {named(TRACKS_UPLOADED)}", f"send {named(TRACKS_TAGGED)}"
    (heard,) = until(lambda: collector.find(process, trace_id=HEARD[0]))
    assert (heard.service, heard.kind, heard.parent_id, heard.failed) == (
        "tastewave-tracks",
        "CONSUMER",
        HEARD[1],
        False,
    )
    assert (
        heard.told.items()
        >= {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": named(TRACKS_UPLOADED),
        }.items()
    )
    for stage in ("fetch", "hear", "store"):
        assert [span.parent_id for span in collector.find(stage, trace_id=HEARD[0])] == [heard.span_id]
    (sent,) = collector.find(send, trace_id=HEARD[0])
    (published,) = [one for one in watched.uploads.read(TRACKS_TAGGED) if one.key.endswith(b":track")]
    assert dict(published.headers) == {"traceparent": traceparent(HEARD[0], sent.span_id).encode()}
    (broken,) = until(lambda: collector.find(process, trace_id=BROKEN[0]))
    assert (broken.failed, broken.told["error.type"]) == (True, "not_audio")
    (letter,) = watched.uploads.read(DEAD_LETTER)
    assert dict(letter.headers)["traceparent"].decode() == traceparent(*BROKEN)


def assert_spans_of_listens(watched: Watched) -> None:
    process = f"process {watched.listens.settings.topics.named(LISTENS)}"
    origins = {f"{trace_id}-{span_id}" for trace_id, span_id in watched.origins.items()}
    until(lambda: set().union(*(span.links for span in watched.collector.find(process))) == origins)
    batches = watched.collector.find(process)
    assert {(span.service, span.kind, span.parent_id) for span in batches} == {("tastewave-listens", "CONSUMER", "")}
    assert sum(span.told["messaging.batch.message_count"] for span in batches) == 30


def assert_span_of_the_request(watched: Watched) -> None:
    (asked,) = until(lambda: watched.collector.find("GET /v1/tracks/{track_id}"))
    assert (asked.service, asked.kind) == ("tastewave-serve", "SERVER")
    assert (asked.trace_id, asked.parent_id) == ASKED
    assert asked.told == {
        "http.request.method": "GET", "http.route": "/v1/tracks/{track_id}", "http.response.status_code": 200
    }  # fmt: skip
    assert not [span for span in watched.collector.spans if span.name == "GET /ready"]


def assert_metrics_follow_the_rules_of_prometheus(watched: Watched) -> None:
    scraped = [
        watched.uploads.health("/metrics")[1],
        watched.listens.health("/metrics")[1],
        watched.api.text("/metrics"),
    ]
    for text in (*scraped, watched.collector.metrics):
        assert "tastewave_" in text
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, check=False, capture_output=True, text=True, timeout=60
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        assert all(line.startswith(("#", "tastewave_")) for line in text.splitlines())


def assert_every_query_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 40
    deadline = time.monotonic() + 180  # some rules are evaluated once a minute, and one of them needs another
    silent = queries
    while silent := [one for one in silent if not prometheus.query(one.replace("$__rate_interval", "1m"))]:
        assert time.monotonic() < deadline, silent
        time.sleep(0.5)
    assert [one["metric"]["alertname"] for one in prometheus.query('ALERTS{alertstate="firing"}')] == []
    assert len(prometheus.query("release:tastewave_genre_drift:psi1d")) == 1
