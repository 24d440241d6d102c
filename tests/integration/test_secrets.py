"""Canary passwords in every place for a secret: no log line, error, page, header or process title shows one."""

import contextlib
import http.server
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from deploy.local import Redis
from deploy.local.process import free_port
from models.contract import TRACKS_TAGGED
from tests.platform.clock import until
from tests.platform.commands import run_command
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers
CANARY = "c4nary"
PASSWORD = f"{CANARY}-p/w:d@ü?\\'{CANARY}"  # what must be percent-encoded in a URL, and what a repr escapes
ENCODED = quote(PASSWORD, safe="")
COMMANDS = (["topics", "check"], ["dead-letters"], ["upload", "https://music.invalid/a.mp3", "--wait"])
REDIS_COMMANDS = (["get", "track", "t1"], ["release", "activate"])


def assert_silent(*texts: str) -> None:
    for text in texts:
        assert CANARY not in text, text[max(0, text.index(CANARY) - 500) :][:1000]


def assert_command_silent(environment: dict[str, str], command: list[str], *, status: int = 1) -> str:
    done = run_command("tastewave", *command, environment=environment)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert_silent(done.stdout, done.stderr)
    return done.stderr


def assert_commands_silent(environment: dict[str, str], commands: Sequence[list[str]], said: str) -> None:
    """Each command fails with this text."""
    for command in commands:
        assert said in assert_command_silent(environment, command)


def worker_titles(platform: Platform) -> str:
    worker = psutil.Process(platform.workers[-1].pid)
    return " ".join(part for process in (worker, *worker.children(recursive=True)) for part in process.cmdline())


def assert_worker_waits_in_silence(platform: Platform, server: str) -> None:
    number = len(platform.workers) - 1

    def waiting() -> Any:
        status, report = platform.health("/ready", number)
        return status == 503 and server in json.loads(report)["problems"]

    until(waiting)
    assert_silent(platform.health("/ready", number)[1], platform.health("/metrics", number)[1], worker_titles(platform))
    platform.workers[number].send_signal(signal.SIGTERM)
    assert platform.workers[number].wait(60) == 0
    assert_silent(platform.worker_log(number))


def assert_worker_ends_in_silence(platform: Platform, said: str) -> None:
    number = len(platform.workers) - 1
    assert platform.workers[number].wait(60) == 1
    assert said in platform.worker_log(number)
    assert_silent(platform.worker_log(number))


@pytest.fixture(params=["json", "console"])
def log_format(request: pytest.FixtureRequest) -> str:
    return request.param


# --- Kafka


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_no_kafka_password_shows_where_the_broker_speaks_no_sasl(platform: Platform, mechanism: str) -> None:
    sasl = {"kafka_security": "SASL_PLAINTEXT", "kafka_sasl_mechanism": mechanism}
    sasl |= {"kafka_username": "worker", "kafka_password": PASSWORD}
    platform.start_worker(**sasl, log_level="debug")
    assert_worker_waits_in_silence(platform, "kafka")
    environment = platform.environment | {f"TASTEWAVE_{name.upper()}": value for name, value in sasl.items()}
    assert_commands_silent(environment, COMMANDS, "Kafka at")


def test_no_kafka_password_shows_while_the_broker_is_away(platform: Platform) -> None:
    sasl = {"kafka_security": "SASL_SSL", "kafka_username": "worker", "kafka_password": PASSWORD}
    sasl["kafka_brokers"] = f"127.0.0.1:{free_port()}"
    platform.start_worker(**sasl, log_level="debug")
    assert_worker_waits_in_silence(platform, "kafka")
    environment = platform.environment | {f"TASTEWAVE_{name.upper()}": value for name, value in sasl.items()}
    assert_commands_silent(environment, COMMANDS, "Kafka at")


def test_nothing_of_a_tls_key_shows_and_nobody_is_asked_for_its_password(platform: Platform) -> None:
    files = {name: platform.folder / f"{name}.pem" for name in ("key", "encrypted", "certificate", "broken")}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=worker",
         "-keyout", files["key"], "-out", files["certificate"]], check=True, capture_output=True)  # fmt: skip
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-in", files["key"], "-out", files["encrypted"], "-passout", f"pass:{CANARY}"],
        check=True, capture_output=True)  # fmt: skip
    files["broken"].write_text(f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n")
    for name in ("encrypted", "broken"):
        tls = {
            "kafka_security": "SSL",
            "kafka_cert_file": str(files["certificate"]),
            "kafka_key_file": str(files[name]),
        }
        platform.start_worker(**tls, log_level="debug")
        assert_worker_ends_in_silence(platform, "TLS to Kafka cannot be set up")
        environment = platform.environment | {f"TASTEWAVE_{name.upper()}": value for name, value in tls.items()}
        assert_commands_silent(environment, COMMANDS, "TLS to Kafka cannot be set up")


# --- Redis


@pytest.mark.parametrize("cluster", ["false", "true"])
def test_no_redis_password_shows_where_it_is_wrong(platform: Platform, cluster: str) -> None:
    url = platform.environment["TASTEWAVE_REDIS_URL"].replace("//", f"//worker:{ENCODED}@")
    platform.start_worker(redis_url=url, redis_cluster=cluster, log_level="debug")
    assert_worker_waits_in_silence(platform, "redis")
    environment = platform.environment | {"TASTEWAVE_REDIS_URL": url, "TASTEWAVE_REDIS_CLUSTER": cluster}
    assert_commands_silent(environment, REDIS_COMMANDS, "Redis at 127.0.0.1")


@pytest.mark.parametrize("cluster", ["false", "true"])
def test_no_redis_password_shows_while_redis_is_away_or_is_no_cluster(
    platform: Platform, redis_server: Redis, cluster: str
) -> None:
    """First the password is right (where the server is taken for a Cluster, which it is not), then Redis is killed."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser("worker", enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["*"])
    url = redis_server.url.replace("//", f"//worker:{ENCODED}@")
    environment = platform.environment | {"TASTEWAVE_REDIS_URL": url, "TASTEWAVE_REDIS_CLUSTER": cluster}
    platform.start_worker(redis_url=url, redis_cluster=cluster, log_level="debug")
    if cluster == "false":
        platform.until_ready()
        assert_silent(platform.health("/ready")[1], platform.health("/metrics")[1], worker_titles(platform))
        assert_command_silent(environment, REDIS_COMMANDS[0])
    redis_server.kill()
    assert_worker_waits_in_silence(platform, "redis")
    assert_commands_silent(environment, REDIS_COMMANDS, "Redis at 127.0.0.1")


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that quotes unknown commands with their arguments, as Redis before version 6 does."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65_536):
                words = [word.decode() for word in data.split(b"\r\n") if word[:1] not in (b"*", b"$", b"")]
                quoted = " ".join(f"`{word}`," for word in words[1:])
                connection.sendall(
                    f"-ERR unknown command `{words[0]}`, with args beginning with: {quoted}\r\n".encode()
                )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_no_redis_password_shows_where_the_server_itself_tells_it(
    platform: Platform, echo: int, log_format: str
) -> None:
    url = f"redis://worker:{ENCODED}@127.0.0.1:{echo}"
    platform.start_worker(redis_url=url, log_level="debug", log_format=log_format)
    assert_worker_ends_in_silence(platform, "unknown command `AUTH`, with args beginning with: `worker`, `***`")
    assert_commands_silent(platform.environment | {"TASTEWAVE_REDIS_URL": url}, REDIS_COMMANDS, "`***`")


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis://worker:{CANARY}/x@127.0.0.1:1/0", f"redis://worker:1?{CANARY}@127.0.0.1:1/0"),
        *(f"redis://worker:1/{CANARY}@127.0.0.1:1/0", f"redis://worker:{CANARY}\uff1a@127.0.0.1:1", f"redis://[{CANARY}@x"),
        *(f"{CANARY}://127.0.0.1", f"{CANARY}:1", f"worker:{CANARY}@127.0.0.1:1", f"redis://127.0.0.1:{CANARY}"),
    ],
)  # fmt: skip
def test_nothing_of_a_redis_url_that_cannot_be_read_shows(platform: Platform, url: str) -> None:
    commands = (*REDIS_COMMANDS, ["worker", "tracks"])
    assert_commands_silent(platform.environment | {"TASTEWAVE_REDIS_URL": url}, commands, "Error: TASTEWAVE_REDIS_URL")


# --- uploads


@pytest.fixture
def web() -> Iterator[str]:
    """A web server whose path says what it answers: a status, or a redirect that holds a secret."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = f"http://127.0.0.1:{server.server_port}"
            what = self.path.partition("?")[0].strip("/")
            redirects = {
                "to-user": f"http://user:{CANARY}@127.0.0.1:1/a",
                "to-token": f"{place}/404?token={CANARY}",
                "to-private": f"http://127.0.0.2:1/a?X-Amz-Signature={CANARY}",
                "to-file": f"file:///etc/hostname?{CANARY}",
                "to-nothing": f"http://[{CANARY}",
                "to-itself": f"/to-itself?token={CANARY}",
                "to-user-encoded": f"https://user:{CANARY}%40127.0.0.1/",
            }
            self.send_response(302 if what in redirects else int(what))
            self.send_header("Content-Length", "0")
            if what in redirects:
                self.send_header("Location", redirects[what])
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def secret_uris(web: str) -> list[str]:
    signed = f"X-Amz-Credential=key&X-Amz-Signature={CANARY}&X-Amz-Security-Token={CANARY}"
    paths = ("200", "403", "404", "503", "to-user", "to-token", "to-private", "to-file", "to-nothing", "to-itself",
             "to-user-encoded")  # fmt: skip
    return [
        *(f"{web}/{path}?{signed}#{CANARY}" for path in paths),
        *(f"{scheme}://user:{CANARY}@127.0.0.1:1/a.mp3" for scheme in ("https", "ftp", "s3", "memory", "file")),
        *(f"https://{CANARY}@127.0.0.1/a", f"https://user:{CANARY}%40127.0.0.1/a", f"https:user:{CANARY}@127.0.0.1/a"),
        *(f"https://user:{CANARY}/x@127.0.0.1/a", f"https://user:{CANARY}?x@127.0.0.1/a", f"https://[{CANARY}"),
        *(f"http://127.0.0.1:1/a?token={CANARY}", f"https://127.0.0.2:1/a?token={CANARY}", f"{CANARY}"),
        *(f"memory://music/a?versionId={CANARY}", f"simplecache::https://user:{CANARY}@127.0.0.1/a", f"data:{CANARY}"),
        *(f"file:///etc/hostname?{CANARY}", f"https://user:{CANARY}\uff20127.0.0.1/a", f"//user:{CANARY}@127.0.0.1/a"),
    ]


def test_no_secret_of_an_uploads_uri_shows(platform: Platform, web: str, log_format: str) -> None:
    platform.start_worker(
        log_level="debug", log_format=log_format, fetch_attempts="2", allowed_buckets="memory://music"
    )
    events = [platform.upload(uri) for uri in secret_uris(web)]
    good = platform.upload(write_music(platform.folder / "good.wav", seconds=3.2).as_uri())
    platform.settled()
    assert platform.wait_for(good).status in ("tagged", "abstained")
    letters = platform.dead_letters()
    assert len(letters) == len(events)
    for letter in letters:
        assert letter["reason"] in ("refused_uri", "not_found", "fetch_failed", "not_audio"), letter
        assert_silent(*(text for name, text in letter.items() if name not in ("key", "value")))
    assert_silent(*(record.value.decode() for record in platform.read(TRACKS_TAGGED)), worker_titles(platform))
    if log_format == "json":  # the health server's port is read from the JSON log
        assert_silent(*(platform.health(path)[1] for path in ("/ready", "/metrics")))
    assert_command_silent(platform.environment, ["dead-letters", "--last", "100"], status=0)
    platform.workers[0].send_signal(signal.SIGTERM)
    assert platform.workers[0].wait(60) == 0
    assert platform.worker_log().count("track.failed") == len(events)
    assert_silent(platform.worker_log())


def test_no_secret_of_a_url_shows_when_it_is_uploaded_by_the_command(platform: Platform, web: str) -> None:
    urls = [uri for uri in secret_uris(web) if "://" in uri]
    platform.start_worker(fetch_attempts="1")
    platform.until_ready()
    for form in ([], ["--json"]):
        assert_command_silent(platform.environment, ["upload", *urls, "--wait", *form])
    assert_command_silent(platform.environment, ["upload", f"https://user:{CANARY}@host/{'x' * 9000}"])


def test_the_canary_is_noticed(environment: dict[str, str], tmp_path: Path) -> None:
    """A client name is no secret, so it is logged; the checks of this file notice it."""
    platform = Platform(worker_environment(environment, tmp_path), tmp_path)
    try:
        url = f"redis://127.0.0.1:1/0?client_name={CANARY}"
        platform.start_worker(topic_prefix=f"{CANARY}.", redis_url=url)
        with pytest.raises(AssertionError, match=CANARY):
            assert_worker_waits_in_silence(platform, "kafka")
    finally:
        platform.close()
