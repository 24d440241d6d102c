"""What the broker or the worker's own machine refuses is no fault of a track: it waits, and `/ready` says for what."""

import contextlib
import functools
import http.server
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from deploy.local import Kafka
from models.contract import DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED, TRACKS_UPLOADED
from tests.platform.clock import until
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers


def problem(platform: Platform, server: str) -> str:
    status, report = platform.health("/ready")
    return json.loads(report)["problems"].get(server, "") if status else ""


class AuthorizingKafka(Kafka):
    """A broker that judges by ACLs, and allows everybody what has none."""

    def _java(self, home: Path, archive_option: str) -> list[str]:
        command = super()._java(home, archive_option)
        with (self.folder / "server.properties").open("a") as properties:
            properties.write(
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
                "allow.everyone.if.no.acl.found=true\n"
            )
        return command


@pytest.fixture(scope="module")
def authorizing() -> Iterator[Kafka]:
    """A broker with ACLs. A test takes back those that it makes."""
    with AuthorizingKafka() as kafka:
        yield kafka


@pytest.fixture
def guarded(environment: dict[str, str], authorizing: Kafka, tmp_path: Path) -> Iterator[Platform]:
    """A platform on a broker with ACLs."""
    own = {"TASTEWAVE_KAFKA_BROKERS": authorizing.brokers, "TASTEWAVE_TOPIC_PARTITIONS": "1"}
    with contextlib.closing(Platform(worker_environment(environment | own, tmp_path), tmp_path)) as platform:
        yield platform


@contextlib.contextmanager
def with_acls(platform: Platform, acls: list[ACL]) -> Iterator[None]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=list(platform.settings.kafka.brokers))) as admin:
        admin.create_acls(acls)
        try:
            yield
        finally:
            admin.delete_acls(acls)


@contextlib.contextmanager
def without_right(platform: Platform, operation: ACLOperation, kind: ResourceType, name: str) -> Iterator[None]:
    everybody = "User:ANONYMOUS"
    pattern = ResourcePattern(kind, name if name == "*" else platform.settings.topics.named(name))
    allowed = ACL(everybody, "*", ACLOperation.ALL, ACLPermissionType.ALLOW, pattern)
    denied = ACL(everybody, "*", operation, ACLPermissionType.DENY, pattern)
    with with_acls(platform, [allowed, denied]):
        yield


@pytest.mark.parametrize("topic", [TRACKS_TAGGED, TRACKS_FEATURES, DEAD_LETTER])
def test_a_broker_that_refuses_to_take_what_a_record_needs_is_away(guarded: Platform, topic: str) -> None:
    file = write_music(guarded.folder / "track.wav")
    guarded.start_worker()
    guarded.until_ready()
    with without_right(guarded, ACLOperation.WRITE, ResourceType.TOPIC, topic):
        event = guarded.upload(file.as_uri())
        broken = guarded.upload((guarded.folder / "missing.wav").as_uri())
        said = until(lambda: problem(guarded, "kafka"))
        assert "TopicAuthorizationFailed" in said
        assert "grant its user the rights of deploy/docs/production.md" in said
    guarded.settled()
    guarded.until_ready()
    assert guarded.output().keys() == {event.track_id, broken.track_id}
    assert [letter["reason"] for letter in guarded.dead_letters()] == ["not_found"]
    assert len(guarded.read(TRACKS_FEATURES)) == 1
    assert "Traceback" not in guarded.worker_log()


@pytest.mark.parametrize("topic", [TRACKS_TAGGED, TRACKS_FEATURES, DEAD_LETTER, "*"])
def test_a_right_to_write_that_is_missing_is_noticed_before_the_first_record(guarded: Platform, topic: str) -> None:
    with without_right(guarded, ACLOperation.WRITE, ResourceType.TOPIC, topic):
        guarded.start_worker()
        said = until(lambda: problem(guarded, "kafka"))
        assert "may not write to" in said
        written = (DEAD_LETTER, TRACKS_FEATURES, TRACKS_TAGGED)
        assert [name for name in written if name in said] == [name for name in written if topic in (name, "*")]
        assert "grant its user the rights of deploy/docs/production.md" in said
    guarded.until_ready()
    assert "Traceback" not in guarded.worker_log()


def test_the_documented_rights_are_enough(guarded: Platform) -> None:
    event = guarded.upload(write_music(guarded.folder / "track.wav").as_uri())
    missing = guarded.upload((guarded.folder / "missing.wav").as_uri())
    read, write = (ACLOperation.READ, ACLOperation.DESCRIBE), (ACLOperation.WRITE, ACLOperation.DESCRIBE)
    rights = {
        (ResourceType.TOPIC, TRACKS_UPLOADED): read,
        (ResourceType.GROUP, f"tastewave.tracks.{guarded.release}"): read,
        **{(ResourceType.TOPIC, topic): write for topic in (TRACKS_TAGGED, TRACKS_FEATURES, DEAD_LETTER)},
    }
    acls = [
        ACL("User:ANONYMOUS", "*", operation, ACLPermissionType.ALLOW,
            ResourcePattern(kind, guarded.settings.topics.named(name)))
        for (kind, name), operations in rights.items()
        for operation in operations
    ]  # fmt: skip
    with with_acls(guarded, acls):
        guarded.start_worker()
        assert guarded.wait_for(event).status != "failed"
        guarded.until_ready()
        until(lambda: guarded.lag() == 0)
    assert guarded.output().keys() == {event.track_id, missing.track_id}
    assert len(guarded.dead_letters()) == len(guarded.read(TRACKS_FEATURES)) == 1


def test_a_worker_that_may_not_join_its_group_says_so_and_joins_when_it_may(guarded: Platform) -> None:
    event = guarded.upload(write_music(guarded.folder / "track.wav").as_uri())
    group = f"tastewave.tracks.{guarded.release}"
    with without_right(guarded, ACLOperation.READ, ResourceType.GROUP, group):
        guarded.start_worker()
        said = until(lambda: problem(guarded, "kafka"))
        assert "GroupAuthorizationFailed" in said
        assert "grant its user the rights of deploy/docs/production.md" in said
    assert guarded.wait_for(event).status != "failed"
    guarded.until_ready()
    assert "Traceback" not in guarded.worker_log()


def test_a_worker_that_ends_by_itself_leaves_no_note_of_what_it_was_hearing(guarded: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # what fetches from it is in hand
        guarded.upload(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp3")
        worker = guarded.start_worker()
        until(lambda: guarded.redis.keys("tw:*:hearing:*uploaded*"))
        with without_right(guarded, ACLOperation.READ, ResourceType.TOPIC, TRACKS_UPLOADED):
            assert worker.wait(60) == 1
    assert guarded.redis.keys("tw:*:hearing:*") == []


def test_a_broker_that_speaks_no_tls_is_waited_for_with_what_to_do(platform: Platform) -> None:
    platform.start_worker(kafka_security="SSL")
    assert "correct TASTEWAVE_KAFKA_BROKERS, TASTEWAVE_KAFKA_SECURITY" in until(lambda: problem(platform, "kafka"))
    platform.workers[0].send_signal(signal.SIGTERM)
    assert platform.workers[0].wait(60) == 0
    assert "Traceback" not in platform.worker_log()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server for the folder of the platform, whose files a worker must download."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_worker_whose_disk_takes_no_more_says_so_before_the_first_record_and_waits(
    platform: Platform, web: str
) -> None:
    write_music(platform.folder / "track.wav")
    temporary = platform.folder / "temporary"
    temporary.mkdir()
    platform.environment["TMPDIR"] = str(temporary)
    platform.start_worker()
    platform.until_ready()
    assert platform.wait_for(platform.upload(f"{web}/track.wav")).status != "failed"
    temporary.rename(platform.folder / "gone")
    assert "TMPDIR" in until(lambda: problem(platform, "machine"))
    assert 'tastewave_waiting{server="machine"} 1.0' in platform.health("/metrics")[1]
    event = platform.upload(f"{web}/track.wav")
    local = platform.upload((platform.folder / "track.wav").as_uri())  # needs no download
    assert platform.wait_for(local).status != "failed"
    assert platform.held(event.track_id) is None
    (platform.folder / "gone").rename(temporary)
    assert platform.wait_for(event).status != "failed"
    platform.until_ready()
    assert platform.dead_letters() == []


def test_a_worker_that_ran_out_of_descriptors_blames_no_track(platform: Platform, web: str) -> None:
    write_music(platform.folder / "track.wav")
    worker = psutil.Process(platform.start_worker().pid)
    platform.until_ready()
    assert platform.wait_for(platform.upload(f"{web}/track.wav")).status != "failed"
    _, hard = limits = worker.rlimit(psutil.RLIMIT_NOFILE)
    worker.rlimit(psutil.RLIMIT_NOFILE, (max(int(name) for name in fds(worker)) + 1, hard))
    events = [platform.upload(f"{web}/track.wav") for _ in range(20)]
    until(lambda: '"server":"machine"' in platform.worker_log().replace(" ", ""))
    worker.rlimit(psutil.RLIMIT_NOFILE, limits)
    for event in events:
        assert platform.wait_for(event).status != "failed"
    assert platform.dead_letters() == []


def fds(process: psutil.Process) -> list[str]:
    return [path.name for path in Path(f"/proc/{process.pid}/fd").iterdir()]
