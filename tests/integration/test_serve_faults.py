"""`tastewave serve` while Redis or Kafka is away: it says so, answers what it can, and goes on by itself."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy.local import Kafka, Redis
from tests.integration.test_serve import OLD, Stream, track, user
from tests.platform.clock import until
from tests.platform.serve import Api, publisher

pytestmark = pytest.mark.servers


def retry_after(api: Api, path: str) -> str | None:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{api.port}{path}", timeout=10)
    except urllib.error.HTTPError as error:
        return error.headers["Retry-After"] if error.code == 503 else None
    return None


def test_without_redis_the_answer_is_to_try_again_and_without_kafka_reads_go_on(
    kafka: Kafka, redis_server: Redis, tmp_path: Path
) -> None:
    environment = {
        "TASTEWAVE_SERVE_UPLOADS": str(tmp_path),
        "TASTEWAVE_KAFKA_BROKERS": kafka.brokers,
        "TASTEWAVE_REDIS_URL": redis_server.url,
        "TASTEWAVE_SERVE_TIMEOUT_S": "1",
    }
    with publisher(environment) as platform:
        platform.activate(OLD)
        platform.put(track("t1", 0.0), track("t2", 0.1), user("ann", 0.0))
        with Api(platform.environment) as api:
            reads = ("/v1/tracks/t1", "/v1/users/ann", "/v1/tracks/t1/similar", "/v1/users/ann/tracks", "/v1/release")
            assert [api.get(path)[0] for path in reads] == [200] * 5

            redis_server.pause()  # it takes connections, and answers nothing
            until(lambda: [retry_after(api, path) for path in reads] == ["1"] * 5)
            assert api.get("/v1/tracks/batch", body={"ids": ["t1"]})[1]["type"] == "urn:tastewave:problem:redis-away"
            redis_server.resume()
            until(lambda: [api.get(path)[0] for path in reads] == [200] * 5)

            redis_server.kill()
            until(lambda: retry_after(api, "/v1/tracks/t1") == "1")
            status, report = api.get("/ready")
            assert (status, report["ready"]) == (503, False)
            assert "redis" in report["problems"]
            assert api.get("/live")[0] == 200
            redis_server.start()
            platform.activate(OLD)
            platform.put(track("t1", 0.0), track("t2", 0.1), user("ann", 0.0))
            until(lambda: [api.get(path)[0] for path in reads] == [200] * 5)

            stream = Stream(api, "/v1/events")
            kafka.kill()

            def problem() -> object:
                told = [json.loads(event["data"]) for event in stream.events if event["event"] == "problem"]
                return told[-1]["problem"] if told else None

            until(problem)
            assert [api.get(path)[0] for path in reads] == [200] * 5
            status, report = api.get("/ready")
            assert (status, report["ready"]) == (200, True)
            assert "afka" in report["problems"]["feed"]
            sound = {"Content-Type": "application/octet-stream"}
            status, told = api.get("/v1/uploads?name=a.wav", body="sound", **sound)
            assert (status, told["type"]) == (503, "urn:tastewave:problem:kafka-away")
            assert list(tmp_path.iterdir()) == []
            kafka.start()
            until(lambda: api.get("/ready")[1]["problems"] == {})
            until(lambda: problem() is None)
            platform.put(track("t3", 0.2))
            until(lambda: "t3" in stream.ids())
