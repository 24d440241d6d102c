"""Logging in with tokens, and telling where a worker runs, on a real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import Kafka
from deploy.local.process import free_port
from stream.broker.app import batch_app
from stream.settings import load_settings
from tests.platform.clock import until
from tests.platform.music import write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers

PROVIDERS = """
import base64, json, time

def _part(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

def token():
    now = int(time.time())
    return f"{_part({'alg': 'none'})}.{_part({'sub': 'worker', 'iat': now, 'exp': now + 600})}."

def expired():
    return f"{_part({'alg': 'none'})}.{_part({'sub': 'worker', 'iat': 1, 'exp': 2})}."

def broken():
    raise PermissionError("c4nary")
"""


class TokenKafka(Kafka):
    """A broker with a second listener, where clients log in with unsigned tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.token_port = free_port()

    def _command(self) -> list[str]:
        command = super()._command()
        properties = Path(command[-1])
        text = properties.read_text().replace(
            "listeners=PLAINTEXT:", f"listeners=SASL_PLAINTEXT://127.0.0.1:{self.token_port},PLAINTEXT:"
        )
        module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
        properties.write_text(
            text
            + "listener.security.protocol.map="
            + "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n"
            + "sasl.enabled.mechanisms=OAUTHBEARER\n"
            + f"listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config={module} required "
            + 'unsecuredLoginStringClaim_sub="broker";\n'
        )
        return command


@pytest.fixture(scope="module")
def token_kafka() -> Iterator[TokenKafka]:
    with TokenKafka() as kafka:
        yield kafka


@pytest.fixture
def platform(
    environment: dict[str, str], token_kafka: TokenKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    """A platform whose events come over the plain listener; its workers and commands log in with tokens."""
    (tmp_path / "providers_of_tokens.py").write_text(PROVIDERS)
    monkeypatch.syspath_prepend(tmp_path)  # for commands, which run in this process
    environment |= {"TASTEWAVE_KAFKA_BROKERS": token_kafka.brokers}
    platform = Platform(worker_environment(environment, tmp_path), tmp_path)
    platform.environment |= {
        "PYTHONPATH": str(tmp_path),
        "TASTEWAVE_KAFKA_BROKERS": f"127.0.0.1:{token_kafka.token_port}",
        "TASTEWAVE_KAFKA_SECURITY": "SASL_PLAINTEXT",
        "TASTEWAVE_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "TASTEWAVE_KAFKA_TOKEN_PROVIDER": "providers_of_tokens:token",
    }
    yield platform
    platform.close()


def test_workers_and_commands_log_in_with_tokens(platform: Platform) -> None:
    platform.start_worker()
    event = platform.upload(write_music(platform.folder / "track.wav", seconds=4).as_uri())
    assert platform.wait_for(event).status in ("tagged", "abstained")
    platform.settled()
    assert platform.output().keys() == {event.track_id}
    assert platform.run("topics", "check").count("there") == 8
    assert "No dead letters" in platform.run("dead-letters")


@pytest.mark.parametrize(
    ("provider", "told"), [("broken", "the token provider raised PermissionError"), ("expired", "")]
)
def test_a_worker_without_a_valid_token_waits_and_says_so(platform: Platform, provider: str, told: str) -> None:
    platform.environment["TASTEWAVE_KAFKA_TOKEN_PROVIDER"] = f"providers_of_tokens:{provider}"
    platform.start_worker()

    def said() -> bool:
        status, report = platform.health("/ready")
        return status == 503 and '"kafka"' in report and told in platform.worker_log()

    until(said)
    assert platform.workers[0].poll() is None
    done = platform.try_to_run("dead-letters")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Kafka at")
    assert told in done.stderr
    for text in (platform.health("/ready")[1], platform.worker_log(), done.stderr):
        assert "c4nary" not in text
        assert "Traceback" not in text


async def test_a_worker_tells_kafka_where_it_runs(environment: dict[str, str]) -> None:
    for rack in ("eu-1a", None):
        settings = load_settings(
            kafka_brokers=environment["TASTEWAVE_KAFKA_BROKERS"],
            topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"],
            kafka_client_rack=rack,
        )
        app = batch_app(
            settings, role="tracks", release="0123456789ab", records_per_fetch=32, turns=1, on_away=lambda _: None
        )
        consumer = app.consumer._new_consumer_thread()._create_worker_consumer(app.transport)
        await consumer.start()
        try:
            assert consumer._fetcher._client_rack == rack  # what aiokafka sends with each fetch
        finally:
            await consumer.stop()
