"""What users listened to of late, over HTTP."""

from collections.abc import Iterable

from models.contract import feedback_key, history_key
from models.events import Listen, TrackTagged, UserEmbedded
from models.history import feedback_member, feedback_score, history_member
from models.release import load_release
from tests.stream.serve.conftest import RELEASE, Held

AT = 1_790_000_000_000


def listen(track_id: str, at: int, kind: str = "play", **lengths: int) -> Listen:
    return Listen(event_id="e", user_id="ann", track_id=track_id, kind=kind, at=AT + at, **lengths)  # type: ignore[arg-type]


def remember(held: Held, listens: Iterable[Listen], *, release: str) -> None:
    held.activate(release)
    held.client.zadd(history_key("ann"), {bytes(12): 0})  # the revision
    for one in listens:
        if one.kind != "exclude":
            held.client.zadd(history_key("ann"), {history_member(one): 0})
        if one.kind in ("like", "dislike", "exclude"):
            held.client.zadd(feedback_key("ann"), {feedback_member(one): feedback_score(one.at)})
    held.put(
        UserEmbedded(
            user_id="ann",
            release=release,
            embedding=(1.0,),
            source="history",
            listens=3,
            event_time=AT,
            revision=1,
            refreshed_at=AT,
        )
    )


async def test_listens_are_told_newest_first_with_their_titles_and_what_they_count_as(api, held):
    release = load_release().release_id
    listens = [
        listen("t1", 1, played_ms=200_000, duration_ms=210_000),
        listen("t2", 2, played_ms=60_000, duration_ms=210_000),
        listen("t3", 3, played_ms=5_000, duration_ms=210_000),
        listen("<b>t4</b>", 4, "like"),
        listen("taken back", 5, played_ms=200_000, duration_ms=210_000),
        listen("taken back", 5, "remove"),
        listen("excluded", 6, played_ms=200_000, duration_ms=210_000),
        listen("excluded", 7, "exclude"),
    ]
    remember(held, listens, release=release)
    held.put(
        TrackTagged(
            track_id="t1",
            release=release,
            status="tagged",
            genre="jazz",
            title="So What",
            artist_id="m",
            event_time=1,
            event_id="e",
            tagged_at=1,
        )
    )
    client = api()
    told = (await client.get("/v1/users/ann/listens")).json()
    assert (told["release"], told["user_id"]) == (release, "ann")
    assert [(one["track_id"], one["at"] - AT, one["kind"], one["counts_as"]) for one in told["listens"]] == [
        ("<b>t4</b>", 4, "like", "like"), ("t3", 3, "play", "brief"), ("t2", 2, "play", "partial"),
        ("t1", 1, "play", "play"),
    ]  # fmt: skip
    assert told["listens"][-1] == {
        "track_id": "t1", "kind": "play", "at": AT + 1, "played_ms": 200_000, "duration_ms": 210_000,
        "counts_as": "play", "title": "So What", "artist_id": "m", "genre": "jazz",
    }  # fmt: skip
    two = (await client.get("/v1/users/ann/listens?limit=2")).json()["listens"]
    assert two == told["listens"][:2]
    assert (await client.get("/v1/users/ann/listens?limit=101")).status_code == 400


async def test_listens_need_the_token_and_a_user_who_is_known(api, held, monkeypatch):
    monkeypatch.setenv("TASTEWAVE_RELEASE", "/nowhere")
    remember(held, [listen("t1", 1, "like")], release=RELEASE)
    client = api(token="0123456789abcdef")
    assert (await client.get("/v1/users/ann/listens")).status_code == 401
    client.headers["Authorization"] = "Bearer 0123456789abcdef"
    (told,) = (await client.get("/v1/users/ann/listens")).json()["listens"]
    assert (told["kind"], "counts_as" in told) == ("like", False)
    unknown = await client.get("/v1/users/bob/listens")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:tastewave:problem:unknown-user")
    held.client.zadd(history_key("ann"), {b"short": 0})
    assert (await client.get("/v1/users/ann/listens")).json()["type"] == "urn:tastewave:problem:foreign-value"
