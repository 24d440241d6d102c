"""`tastewave parity` on a platform whose worker runs."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import redis.asyncio

from models.contract import feedback_key, history_key, user_key
from models.events import Listen
from models.history import history_member
from offline.users.embed import run
from offline.users.settings import EmbedUsers
from stream.store.forgotten import forget_user
from tests.conftest import TowerOf
from tests.offline.interactions.random_listens import write_log
from tests.platform import taste
from tests.platform.clock import now_ms, until
from tests.platform.listens import NOON, TRACKS, ListenPlatform, made_up_listens
from tests.platform.tracks import worker_environment

pytestmark = pytest.mark.servers


class Checked(NamedTuple):
    status: int
    report: dict


@pytest.fixture
def platform(environment: dict[str, str], tower_of: TowerOf, tmp_path: Path) -> Iterator[ListenPlatform]:
    release = taste.write_release(tmp_path / "release", tower_of(TRACKS[:30], history=20))
    own = {"TASTEWAVE_RELEASE": str(release), "TASTEWAVE_USER_HISTORY": "30", "TASTEWAVE_USER_FEEDBACK": "12"}
    platform = ListenPlatform(worker_environment(environment | own, tmp_path), tmp_path)
    yield platform
    platform.close()


@pytest.fixture
def check(platform: ListenPlatform) -> Callable[..., Checked]:
    def check(*arguments: str) -> Checked:
        done = platform.try_to_run("parity", "--json", *arguments)
        assert not done.stderr, done.stderr
        return Checked(done.returncode, json.loads(done.stdout))

    return check


def assert_offline_agrees(platform: ListenPlatform, listens: list[Listen], folder: Path) -> None:
    """What embed-users says of a log of the listens is what Redis answers after the last of them."""
    users = sorted({one.user_id for one in listens})
    moments = pl.DataFrame({"user_id": users, "at": [max(one.at for one in listens)] * len(users)})
    moments.write_parquet(folder / "moments.parquet")
    settings = EmbedUsers(
        log=write_log(folder / "log.parquet", listens),
        moments=str(folder / "moments.parquet"),
        out=str(folder / "users.parquet"),
        release=platform.environment["TASTEWAVE_RELEASE"],
        history=30,
        feedback=12,
    )
    for row in pl.read_parquet(run(settings).out).iter_rows(named=True):
        online = platform.user(row["user_id"])
        assert online
        assert (online.source, online.listens) == (row["source"], row["listens"])
        np.testing.assert_allclose(online.embedding, row["embedding"], atol=1e-5)


def like(user_id: str, track_id: str, at: int) -> Listen:
    return Listen(event_id="e", user_id=user_id, track_id=track_id, kind="like", at=at)


def test_users_stand_where_their_listens_put_them_and_whoever_does_not_is_told(
    platform: ListenPlatform, check: Callable[..., Checked], tmp_path: Path
) -> None:
    refused = platform.try_to_run("parity")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        "has committed nothing, so that there is nothing to compare; start `tastewave worker listens`" in refused.stderr
    )
    platform.start_worker()
    platform.until_ready()
    listens = made_up_listens()
    platform.listen(listens)
    platform.settled()
    assert_offline_agrees(platform, listens, tmp_path)
    assert check() == Checked(
        0, {"release": platform.release, "sampled": 40, "compared": 40, "differing": 0, "differences": []}
    )
    assert check("--sample", "7").report["compared"] == 7
    assert platform.run("parity", "--minutes", "10000").endswith(
        f"0 of 40 users differ from the listens on Kafka (release {platform.release}).\n"
    )

    (lost,) = platform.redis.zrange(history_key("u1"), 5, 5)
    platform.redis.zrem(history_key("u1"), lost)
    foreign = like("u2", "never told", NOON + 10**9)
    platform.redis.zadd(history_key("u2"), {history_member(foreign): 0})
    wrong = np.eye(40, dtype="<f4")[7]
    platform.redis.hset(user_key(platform.release, "u3"), "embedding", wrong.tobytes())
    said = platform.redis.zrange(feedback_key("u4"), 0, 0)
    platform.redis.zrem(feedback_key("u4"), *said)
    status, report = check()
    assert (status, report["compared"], report["differing"]) == (1, 40, 4)
    told = {one["user_id"]: one for one in report["differences"]}
    assert (told["u1"]["missing"], told["u1"]["extra"]) == (1, 0)
    assert told["u2"]["extra"] == 1
    assert (told["u3"]["missing"], told["u3"]["extra"]) == (0, 0)
    assert told["u3"]["cosine"] < 0.99
    assert told["u4"]["missing"] == 1
    shown = platform.try_to_run("parity", "--metrics-file", str(tmp_path / "parity.prom"))
    assert shown.returncode == 1
    written = (tmp_path / "parity.prom").read_text()
    assert f'\ntastewave_parity_compared_users{{release="{platform.release}"}} 40.0\n' in written
    assert f'\ntastewave_parity_differing_users{{release="{platform.release}"}} 4.0\n' in written
    assert "4 of 40 users differ from the listens on Kafka" in shown.stdout


def test_who_was_forgotten_and_whose_listens_wait_is_not_held_against_the_worker(
    platform: ListenPlatform, check: Callable[..., Checked]
) -> None:
    worker = platform.start_worker()
    platform.until_ready()
    now = now_ms()
    platform.listen([like(f"u{number}", TRACKS[number], now - 9000) for number in range(5)])
    platform.settled()

    async def forget() -> None:
        async with redis.asyncio.from_url(platform.environment["TASTEWAVE_REDIS_URL"]) as client:
            await forget_user(client, "u1", now - 5000, releases=[platform.release])

    asyncio.run(forget())
    platform.listen([like("u1", TRACKS[9], now - 1000)])
    platform.settled()
    assert until(lambda: platform.user("u1")).listens == 1
    assert check("--minutes", "1") == Checked(
        0, {"release": platform.release, "sampled": 5, "compared": 5, "differing": 0, "differences": []}
    )
    worker.terminate()
    worker.wait()
    platform.listen([like("u2", TRACKS[3], now)])
    status, report = check()
    assert (status, report["sampled"], report["compared"]) == (0, 5, 4)
    assert "1 more had listens meanwhile and were not compared" in platform.run("parity")
