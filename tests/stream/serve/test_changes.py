"""Dead letters and corrections over HTTP: who may, what is refused, and what is done."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from models.contract import DEAD_LETTER, LISTENS, TRACKS_CORRECTED, TRACKS_UPLOADED
from models.errors import SettingsError
from models.events import TrackCorrected, TrackTagged, decode_event
from stream.broker.redrive import Choice
from stream.serve import letters
from stream.serve.problems import RedriveStopped
from stream.serve.server import run_server
from stream.settings import load_settings
from tests.platform.feeds import eventually
from tests.platform.serve import Publisher, publisher
from tests.stream.serve.conftest import RELEASE

pytestmark = pytest.mark.servers
TOKEN = "0123456789abcdef"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
ALLOWED = {"token": TOKEN, "redrive": True, "corrections": True}
REDRIVE, CORRECT = "/v1/dead-letters/redrive", "/v1/corrections"
CORRECTION = {"track_id": "t1", "genre": "dub", "by": "ann"}


@pytest.fixture
def platform(environment: dict[str, str]) -> Iterator[Publisher]:
    with publisher(environment) as made:
        yield made


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:tastewave:problem:")


def source(platform: Publisher, offset: int, *, topic: str = TRACKS_UPLOADED, partition: int = 0) -> dict[str, Any]:
    return {"topic": platform.settings.topics.named(topic), "partition": partition, "offset": offset}


@pytest.mark.parametrize("allowed", ["redrive", "corrections"])
def test_what_changes_something_needs_a_token_at_loopback_too(allowed: str) -> None:
    with pytest.raises(SettingsError, match=f"TASTEWAVE_SERVE_{allowed.upper()} .*TASTEWAVE_SERVE_TOKEN"):
        run_server(load_settings(**{f"serve_{allowed}": True}))


async def test_nothing_is_changed_without_the_token_the_setting_and_a_body_that_fits(api, held) -> None:
    off, on = api(token=TOKEN), api(**ALLOWED)
    for path, body in ((REDRIVE, {"by": "ann", "reason": "silent"}), (CORRECT, CORRECTION)):
        assert kind(await on.post(path, json=body)) == (401, "no-token")
        assert kind(await on.post(path, json=body, headers={"Authorization": "Bearer guessed"})) == (401, "no-token")
        assert kind(await off.post(path, json=body, headers=AUTHORIZED)) == (403, "switched-off")
        form = AUTHORIZED | {"Content-Type": "text/plain"}
        assert kind(await on.post(path, content=json.dumps(body), headers=form)) == (415, "not-json")
        for wrong in ([], {}, body | {"by": ""}, body | {"more": 1}, body | {"by": 7}):
            assert kind(await on.post(path, json=wrong, headers=AUTHORIZED)) == (400, "bad-request"), wrong
        nested = AUTHORIZED | {"Content-Type": "application/json"}
        assert (await on.post(path, content='{"by":' + "[" * 100_000, headers=nested)).status_code == 400
    assert kind(await on.post(REDRIVE, json={"by": "ann"}, headers=AUTHORIZED)) == (400, "bad-request")
    too_long = CORRECTION | {"track_id": "ü" * 200}
    assert kind(await on.post(CORRECT, json=too_long, headers=AUTHORIZED)) == (400, "bad-request")
    assert kind(await on.get("/v1/dead-letters")) == (401, "no-token")


async def test_where_kafka_is_away_the_answer_is_to_try_again(api, held) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        client = api(**ALLOWED, kafka_brokers=f"127.0.0.1:{closed.getsockname()[1]}")
    client.headers.update(AUTHORIZED)
    answers = await asyncio.gather(
        client.get("/v1/dead-letters"),
        client.post(REDRIVE, json={"by": "ann", "reason": "silent"}),
        client.post(CORRECT, json=CORRECTION),
    )
    assert [kind(answer) for answer in answers] == [(503, "kafka-away")] * 3


async def test_letters_are_told_newest_first_page_by_page_and_by_reason_and_time(
    api, held, platform: Publisher, monkeypatch
) -> None:
    monkeypatch.setattr(letters, "NEWEST", 4)
    monkeypatch.setattr(letters, "_FRESH_S", 0.0)
    client = api(**ALLOWED)
    client.headers.update(AUTHORIZED)
    empty = (await client.get("/v1/dead-letters")).json()
    assert (empty["letters"], empty["counts"], empty["are_all"], "next" in empty) == ([], {}, True, False)
    put = platform.put_letter
    for number in range(4):
        put(number, at=1000 + number, message=f"no file of {TOKEN}", partition=number % 3)
    put(9, topic=LISTENS, key=b"u", value=b'{"user_id": "ann", "track_id": 7}', reason="malformed_event", at=2000)
    put(10, topic=LISTENS, key=b"u", value=b'{"user_id": "<b>", "track_id": "t7"}', reason="malformed_event", at=2001)

    first = (await client.get("/v1/dead-letters?limit=2")).json()
    second = (await client.get("/v1/dead-letters", params={"limit": 9, "after": first["next"]})).json()
    told = first["letters"] + second["letters"]
    assert [letter["time"] for letter in told] == [2001, 2000, 1003, 1002, 1001, 1000]
    assert "next" not in second
    assert first["counts"] == {"not_found": 4, "malformed_event": 2}
    assert set(first["explained"]) == set(first["counts"])
    assert "is not there" in first["explained"]["not_found"]["meaning"]
    assert [(one.get("track_id"), one.get("user_id")) for one in told[:3]] == [
        ("t7", "<b>"),
        (None, None),
        ("t3", None),
    ]
    assert told[2]["source"] == source(platform, 3)
    assert (told[2]["reason"], told[2]["attempts"], told[2]["key"]) == ("not_found", 1, "t3")
    assert told[2]["message"] == "no file of ***"

    by_reason = (await client.get("/v1/dead-letters?reason=not_found&since=1002")).json()
    assert [letter["time"] for letter in by_reason["letters"]] == [1003, 1002]
    for number in range(20, 25):
        put(number, key=b"one partition", at=3000 + number)
    newest = (await client.get("/v1/dead-letters?since=3000")).json()
    assert [letter["time"] for letter in newest["letters"]] == [3024, 3023, 3022, 3021]
    assert not newest["are_all"]
    for after in ("x", "1_2", "1_2_x", "9" * 5000 + "_1_1"):
        assert kind(await client.get("/v1/dead-letters", params={"after": after})) == (400, "bad-request")


async def test_one_redrive_runs_at_a_time_and_marks_what_it_has_sent(
    api, held, platform: Publisher, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(letters, "_FRESH_S", 0.0)
    client = api(**ALLOWED)
    client.headers.update(AUTHORIZED)
    put = platform.put_letter
    for number in range(3):
        put(number)
    put(3, reason="silent")
    chosen = {"by": "ann", "sources": [source(platform, 1), source(platform, 2)]}
    answers = await asyncio.gather(
        client.post(REDRIVE, json=chosen), client.post(REDRIVE, json={"by": "bob", "reason": "silent"})
    )
    done, refused = answers
    assert (done.status_code, done.json()) == (
        200,
        {"sent": {"not_found": 2}, "repeated": 0, "truncated": 0, "foreign": 0},
    )
    assert kind(refused) == (409, "already-running")
    assert [record.key for record in platform.read(TRACKS_UPLOADED)] == [b"t1", b"t2"]
    told = (await client.get("/v1/dead-letters")).json()["letters"]
    assert {letter["key"]: letter.get("redriven_by") for letter in told} == {
        "t0": None, "t1": "ann", "t2": "ann", "t3": None
    }  # fmt: skip
    nothing = await client.post(REDRIVE, json={"by": "bob", "reason": "silent", "since": 1_700_000_000_001})
    assert nothing.json()["sent"] == {}
    assert len(platform.read(DEAD_LETTER)) == 4


async def test_a_redrive_ends_with_the_process_at_its_next_letter_and_the_log_says_how_far_it_came(
    environment: dict[str, str], platform: Publisher, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(letters, "EVENTS_A_SECOND", 10.0)
    for number in range(30):
        platform.put_letter(number)
    redrives = letters.Redrives(platform.settings)
    running = asyncio.create_task(redrives.run(Choice(reason="not_found"), by="ann"))
    await eventually(lambda: redrives.running and redrives.running.read > 3)
    await redrives.stop()
    with pytest.raises(RedriveStopped):
        await running
    sent = len(platform.read(TRACKS_UPLOADED))
    assert 3 <= sent < 30
    assert f"sent={{'not_found': {sent}}}" in capsys.readouterr().out


async def test_a_correction_is_on_kafka_and_in_the_answers_when_it_is_acknowledged(
    api, held, platform: Publisher
) -> None:
    client = api(**ALLOWED)
    client.headers.update(AUTHORIZED)
    held.put(TrackTagged(track_id="t1", release=RELEASE, status="abstained", event_time=1, event_id="e", tagged_at=1))
    answer = await client.post(CORRECT, json=CORRECTION)
    assert (answer.status_code, answer.json()) == (200, {"track_id": "t1", "genre": "dub", "releases": [RELEASE]})
    (record,) = platform.read(TRACKS_CORRECTED)
    said = decode_event(record.value, TrackCorrected)
    assert (record.key, said.genre, said.by) == (b"t1", "dub", "ann")
    told = (await client.get("/v1/tracks/t1")).json()
    assert (told["status"], told["genre"], told["corrected_at"]) == ("corrected", "dub", said.at)


async def test_the_runbook_can_be_read_without_any_other_server(api, held) -> None:
    answer = await api().get("/runbook")
    assert 'id="7-dead-letters"' in answer.text
    assert "script" not in answer.headers["content-security-policy"]
