"""The taste map and uploads of `tastewave serve`, on a real Kafka and Redis."""

import gzip
import json
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer

from models.contract import TRACKS_UPLOADED
from tests.integration.test_serve import OLD, place, track, user
from tests.platform.clock import until
from tests.platform.serve import Api, publisher

pytestmark = pytest.mark.servers
TOKEN = "0123456789abcdef"
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


def request(api: Api, path: str, *, body: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
    asked = urllib.request.Request(f"http://127.0.0.1:{api.port}{path}", body, headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def points_of(body: bytes) -> tuple[dict[str, Any], np.ndarray]:
    size = int.from_bytes(body[:4], "little")
    return json.loads(body[4 : 4 + size]), np.frombuffer(body[4 + size :], "<u2").reshape(3, -1)


def placed(api: Api, *track_ids: str) -> tuple[list[dict[str, Any]], list[str]]:
    status, told = api.get("/v1/map/tracks/batch", body={"ids": track_ids})
    assert status == 200
    return told["tracks"], told["unknown"]


def test_tracks_and_users_have_a_place_in_the_map_and_a_file_becomes_an_event(
    environment: dict[str, str], tmp_path: Path
) -> None:
    serve = {"TASTEWAVE_SERVE_TOKEN": TOKEN, "TASTEWAVE_SERVE_UPLOADS": str(tmp_path)}
    with publisher(environment | serve) as platform:
        platform.activate(OLD)
        angles = {"a/b": 0.0, "near": 0.1, "blue": 0.2, "far": 2.0}
        platform.put(
            *(track(name, angle, genre="blues" if name == "blue" else "jazz") for name, angle in angles.items()),
            user("ann", 0.1),
        )
        with Api(platform.environment) as api:
            status, headers, body = request(api, "/v1/map")
            head, points = points_of(body)
            version = head["version"]
            assert (status, head["points"], head["release"], points.shape) == (200, 4, OLD, (3, 4))
            packed = request(api, "/v1/map", **{"Accept-Encoding": "gzip"})
            assert (packed[1]["Content-Encoding"], gzip.decompress(packed[2])) == ("gzip", body)
            assert request(api, "/v1/map", **{"If-None-Match": headers["ETag"]})[0] == 304

            named = {}
            for number in range(4):
                told = api.get(f"/v1/map/points/{number}?version={version}")[1]
                named[told["track_id"]] = told
                assert told["genre"] == head["genres"][points[2][number]]
            assert placed(api, *named, "nobody") == (list(named.values()), ["nobody"])
            assert named.keys() == angles.keys()
            vectors = np.array([place(angle) for angle in angles.values()])
            _, _, axes = np.linalg.svd(vectors - vectors.mean(axis=0))
            places = np.array([[named[name]["x"], named[name]["y"]] for name in angles])
            np.testing.assert_allclose(np.abs(places), np.abs((vectors - vectors.mean(axis=0)) @ axes[:2].T), atol=1e-5)
            assert api.get("/v1/map/points/0?version=another")[1]["type"] == "urn:tastewave:problem:unknown-point"
            assert api.get("/v1/map/users/ann")[0] == 401
            ann = api.get("/v1/map/users/ann", **WITH_TOKEN)[1]
            assert (ann["version"], ann["source"]) == (version, "history")
            assert (ann["x"], ann["y"]) == pytest.approx((named["near"]["x"], named["near"]["y"]), abs=1e-4)

            platform.put(track("new", 0.05), user("ann", 2.0))
            until(lambda: placed(api, "new")[0])
            (new,), _ = placed(api, "new")
            assert ("point" in new, new["genre"], new["title"]) == (False, "jazz", f"new of {OLD}")
            ann = api.get("/v1/map/users/ann", **WITH_TOKEN)[1]
            assert (ann["x"], ann["y"]) == pytest.approx((named["far"]["x"], named["far"]["y"]), abs=1e-4)

            def found(sought: str) -> list[str]:
                return [one["track_id"] for one in api.get(f"/v1/map/search?q={sought}")[1]["tracks"]]

            assert found("ne") == ["near"]
            assert found("NEAR%20OF") == ["near"]
            assert found("new") == ["new"]
            assert sorted(found(OLD)) == sorted(angles)
            assert found("nobody") == []

            sound = {"Content-Type": "application/octet-stream"}
            assert request(api, "/v1/uploads?name=a.wav", body=b"sound", **sound)[0] == 401
            status, _, told = request(api, "/v1/uploads?name=My%20Song.wav", body=b"sound", **sound, **WITH_TOKEN)
            assert status == 202, told
        (kept,) = tmp_path.iterdir()
        consumer = KafkaConsumer(
            platform.settings.topics.named(TRACKS_UPLOADED),
            bootstrap_servers=list(platform.settings.kafka.brokers),
            auto_offset_reset="earliest",
            consumer_timeout_ms=30_000,
        )
        event = json.loads(next(consumer).value)
        consumer.close()
        assert (event["uri"], event["title"]) == (kept.as_uri(), "My Song")
        assert event["track_id"] == json.loads(told)["track_id"]
