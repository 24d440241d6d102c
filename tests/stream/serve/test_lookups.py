"""Tracks and users over HTTP, as Redis holds them."""

import struct
from urllib.parse import quote

import msgspec
import pytest

from models.events import TrackTagged, UserEmbedded
from tests.stream.serve.conftest import RELEASE

PLACE = struct.unpack("<4f", struct.pack("<4f", 0.1, -0.2, 0.3, 0.9))  # as float32 has them
FACTS = {"release": RELEASE, "event_time": 1, "event_id": "e1", "tagged_at": 2}
TAGGED = TrackTagged(
    track_id="t1", status="tagged", genre="jazz", confidence=0.82, genres=(("jazz", 0.82), ("blues", 0.09)),
    tags=(("female vocalists", 0.4),), embedding=PLACE, title="Näher", artist_id="a1", **FACTS,
)  # fmt: skip
ABSTAINED = TrackTagged(track_id="t2", status="abstained", confidence=0.4, genres_from="tags", **FACTS)
FAILED = TrackTagged(track_id="t3", status="failed", reason="too_short", **FACTS)
USER = UserEmbedded(
    user_id="u1", release=RELEASE, embedding=PLACE, source="history", listens=9, event_time=3, revision=4,
    refreshed_at=5,
)  # fmt: skip


@pytest.mark.parametrize("answer", [TAGGED, ABSTAINED, FAILED], ids=lambda answer: answer.status)
async def test_a_track_is_told_as_its_event_is(api, held, answer):
    held.put(answer)
    told = await api().get(f"/v1/tracks/{answer.track_id}")
    assert told.status_code == 200
    assert told.headers["content-type"] == "application/json"
    assert msgspec.json.decode(told.content, type=TrackTagged, strict=True) == answer


async def test_a_track_that_is_not_known_is_another_answer_than_one_that_failed(api, held):
    told = await api().get("/v1/tracks/t9")
    assert told.status_code == 404
    assert told.headers["content-type"] == "application/problem+json"
    assert told.json() == {
        "type": "urn:tastewave:problem:unknown-track",
        "title": "The track is unknown",
        "status": 404,
        "detail": "release 0123456789ab knows nothing of 't9'",
    }


async def test_a_user_is_told_as_the_event_is_and_may_be_unknown(api, held):
    held.put(USER)
    told = await api().get("/v1/users/u1")
    assert msgspec.json.decode(told.content, type=UserEmbedded) == USER
    assert (await api().get("/v1/users/u2")).json()["type"] == "urn:tastewave:problem:unknown-user"


async def test_a_batch_tells_what_is_known_in_the_order_of_the_ids_and_names_the_rest(api, held):
    for one in (TAGGED, FAILED):
        held.put(one)
    told = await api().post("/v1/tracks/batch", json={"ids": ["t3", "nobody", "t1", "t3"]})
    assert told.status_code == 200
    batch = told.json()
    assert (batch["release"], batch["unknown"]) == (RELEASE, ["nobody"])
    assert msgspec.convert(batch["tracks"], list[TrackTagged]) == [FAILED, TAGGED, FAILED]
    held.put(USER)
    users = (await api().post("/v1/users/batch", json={"ids": ["u0", "u1"]})).json()
    assert (msgspec.convert(users["users"], list[UserEmbedded]), users["unknown"]) == ([USER], ["u0"])


async def test_fields_leave_the_embedding_out(api, held):
    held.put(TAGGED)
    held.put(USER)
    client = api()
    always = {"track_id", "release", "status", "event_time", "event_id", "tagged_at"}
    assert set((await client.get("/v1/tracks/t1?fields=")).json()) == always
    assert set((await client.get("/v1/tracks/t1?fields=genre,title")).json()) == always | {"genre", "title"}
    assert "embedding" not in (await client.get("/v1/users/u1?fields=")).json()
    batch = await client.post("/v1/tracks/batch?fields=genre", json={"ids": ["t1"]})
    assert set(batch.json()["tracks"][0]) == always | {"genre"}
    refused = await client.get("/v1/tracks/t1?fields=genre,colour")
    assert refused.status_code == 400
    assert "'colour'" in refused.json()["detail"]


async def test_vectors_come_as_msgpack_and_as_float32(api, held):
    for one in (TAGGED, ABSTAINED, USER):
        held.put(one)
    client, packed, raw = api(), {"Accept": "application/msgpack"}, {"Accept": "application/octet-stream"}
    floats = struct.pack("<4f", *PLACE)
    one = msgspec.msgpack.decode((await client.get("/v1/tracks/t1", headers=packed)).content)
    assert (one["embedding"], one["genres"], one["title"]) == (floats, [["jazz", 0.82], ["blues", 0.09]], "Näher")
    assert (await client.get("/v1/users/u1", headers=raw)).content == floats
    many = await client.post("/v1/tracks/batch", json={"ids": ["t2", "t1", "t9"]}, headers=raw)
    assert many.headers["tastewave-release"] == RELEASE
    rows = struct.unpack("<12f", many.content)
    assert rows[4:8] == PLACE
    assert all(value != value for value in rows[:4] + rows[8:])  # NaN: no embedding, and no track
    none = await client.get("/v1/tracks/t2", headers=raw)
    assert (none.status_code, none.json()["type"]) == (404, "urn:tastewave:problem:no-embedding")
    assert (await client.get("/v1/tracks/t1", headers={"Accept": "text/csv"})).status_code == 406
    both = {"Accept": "application/msgpack;q=0.5, application/json"}
    assert (await client.get("/v1/tracks/t1", headers=both)).headers["content-type"] == "application/json"


IDS = ["AC/DC", "batch", "similar", "a b?c#d%41", "日本", "\x00\x7f", "x" * 256, "é" * 128, "a/similar", "..", "//"]


async def test_an_id_may_be_any_utf_8_of_up_to_256_bytes(api, held):
    client = api()
    for track_id in IDS:
        held.put(msgspec.structs.replace(TAGGED, track_id=track_id))
        told = await client.get("/v1/tracks/" + quote(track_id, safe="").replace(".", "%2E"))
        assert told.json()["track_id"] == track_id
    batch = await client.post("/v1/tracks/batch", json={"ids": IDS})
    assert [track["track_id"] for track in batch.json()["tracks"]] == IDS


async def test_what_is_no_id_is_refused(api, held):
    client = api()
    for segment in ("x" * 257, quote("é" * 129), "%ff%fe", "%F0%9F", "%ED%A0%80"):
        for kind in ("tracks", "users"):
            told = await client.get(f"/v1/{kind}/{segment}")
            assert (told.status_code, told.json()["type"]) == (400, "urn:tastewave:problem:bad-request"), segment


async def test_a_batch_of_anything_else_is_refused(api, held):
    client = api()
    for body in (
        b"", b"{", b"[]", b"null", b'{"ids": []}', b'{"ids": "t1"}', b'{"ids": [1]}', b'{"ids": [""]}',
        b'{"ids": [null]}',
        b'{"ids": ["t1"], "id": 1}', b'{"ids": ["\\ud800"]}', b'{"ids": ["\xff"]}', b"\x81\xa3ids\x91\xa1a",
        msgspec.json.encode({"ids": ["t"] * 501}), msgspec.json.encode({"ids": ["x" * 257]}),
        msgspec.json.encode({"ids": ["é" * 129]}), b"[" * 100_000, b'{"ids": [' + b"[" * 100_000,
    ):  # fmt: skip
        told = await client.post("/v1/tracks/batch", content=body)
        assert told.status_code == 400, body[:100]
        assert told.headers["content-type"] == "application/problem+json"
        assert told.json()["status"] == 400


async def test_a_batch_of_500_is_answered_and_a_body_beyond_the_limit_is_not_read(api, held):
    told = await api().post("/v1/tracks/batch", json={"ids": [f"t{number}" for number in range(500)]})
    assert len(told.json()["unknown"]) == 500
    assert (await api().post("/v1/tracks/batch", content=b" " * 1_048_577)).status_code == 413


async def test_what_has_not_changed_is_not_sent_again(api, held):
    held.put(TAGGED)
    client = api()
    first = await client.get("/v1/tracks/t1")
    assert first.headers["cache-control"] == "public, max-age=1"
    known = {"If-None-Match": f'"other", W/{first.headers["etag"]}'}
    again = await client.get("/v1/tracks/t1", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await client.get("/v1/tracks/t1", headers=known | {"Accept": "application/msgpack"})).status_code == 200
    held.put(msgspec.structs.replace(TAGGED, tagged_at=3))
    assert (await client.get("/v1/tracks/t1", headers=known)).status_code == 200
    held.put(USER)
    assert (await client.get("/v1/users/u1")).headers["cache-control"] == "private, no-cache"


async def test_where_no_release_is_live_the_answer_is_to_try_again(api, held):
    held.client.flushdb()
    told = await api().get("/v1/tracks/t1")
    assert (told.status_code, told.headers["retry-after"]) == (503, "1")
    assert told.json()["type"] == "urn:tastewave:problem:nothing-live"


async def test_users_need_the_token_and_tracks_do_not(api, held):
    held.put(USER)
    held.put(TAGGED)
    token = "0123456789abcdef"
    client, right = api(token=token), {"Authorization": f"Bearer {token}"}
    for path in ("/v1/users/u1", "/v1/users/u1/tracks", "/v1/tracks/t1/audience", "/v1/events?of=users"):
        for headers in ({}, {"Authorization": token}, {"Authorization": "Bearer 0123456789abcdeé".encode()}):
            refused = await client.get(path, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
    assert (await client.post("/v1/users/batch", json={"ids": ["u1"]})).status_code == 401
    assert (await client.get("/v1/users/u1", headers=right)).status_code == 200
    assert (await client.get("/v1/tracks/t1")).status_code == 200


async def test_every_answer_says_what_a_browser_may_do_with_it(api, held):
    client = api()
    for path in ("/v1/tracks/t1", "/nowhere", "/live", "/docs"):
        headers = (await client.get(path, headers={"Origin": "https://evil.example"})).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert not [name for name in headers if name.startswith("access-control")]
    allowed = api(allowed_origins="https://page.example")
    for origin, told in (("https://page.example", "https://page.example"), ("https://evil.example", None)):
        answer = await allowed.get("/v1/tracks/t1", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == told


async def test_the_documentation_names_every_route_and_loads_nothing(api, held):
    client = api()
    page, document = await client.get("/docs"), (await client.get("/v1/openapi.json")).json()
    assert page.headers["content-type"].startswith("text/html")
    assert len(document["paths"]) == 25
    for path in document["paths"]:
        assert f"{path}</code>" in page.text
    for loads in ("<script", "src=", "<link", "http:", "https:"):
        assert loads not in page.text
