"""Faults of Redis: each test ends with the answers of a run without the fault."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.exceptions
from redis.crc import key_slot

from deploy.local import Redis, RedisCluster
from models.contract import LIVE_KEY, history_key, track_key
from models.errors import EventError
from models.events import Listen
from models.history import feedback_member, feedback_score, history_member
from stream.settings import load_settings
from stream.store.away import is_redis_away
from stream.store.client import async_client, sync_client
from stream.store.forgotten import forget_track, forget_user
from stream.store.histories import Change, HistoryStore
from stream.store.users import UserStore, register_release
from tests.platform.clock import now_ms, until
from tests.platform.load import uploading
from tests.platform.music import write_catalogue, write_music
from tests.platform.tracks import Platform, worker_environment

pytestmark = pytest.mark.servers
MINUTES = "5"  # more than a test takes
PRODUCTION = Path(__file__).parents[2] / "deploy" / "docs" / "production.md"
LIKE = Listen(event_id="e1", user_id="u1", track_id="t1", kind="like", at=1_767_225_600_000)
CHANGE = Change({history_member(LIKE): LIKE.at}, {feedback_member(LIKE): LIKE.at})


@pytest.fixture
def fragile(environment: dict[str, str], redis_server: Redis, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose Redis the test may hurt."""
    with contextlib.closing(platform_on(environment, tmp_path, redis_server.url)) as platform:
        yield platform


@pytest.fixture
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def clustered(environment: dict[str, str], cluster: RedisCluster, tmp_path: Path) -> Iterator[Platform]:
    """A platform on a Redis Cluster that the test may hurt."""
    with contextlib.closing(platform_on(environment, tmp_path, cluster.url, redis_cluster="true")) as platform:
        yield platform


def platform_on(environment: dict[str, str], folder: Path, url: str, *, redis_cluster: str = "false") -> Platform:
    own = {"TASTEWAVE_REDIS_URL": url, "TASTEWAVE_REDIS_CLUSTER": redis_cluster}
    return Platform(worker_environment(environment | own, folder), folder)


def ask(server: Redis) -> redis.Redis:
    return redis.Redis(port=server.port, socket_timeout=5.0, decode_responses=True)


def until_more(platform: Platform, number: int) -> None:
    """Return when so many more tracks are answered than now."""
    before = len(platform.tracks_held())
    until(lambda: len(platform.tracks_held()) >= before + number)


def stop(platform: Platform) -> None:
    platform.workers[0].send_signal(signal.SIGTERM)
    assert platform.workers[0].wait(60) == 0


def logged(platform: Platform, event: str) -> list[dict]:
    lines = map(json.loads, platform.worker_log().splitlines())
    return [line for line in lines if line["event"] == event]


def not_ready(platform: Platform) -> bool:
    return platform.health("/ready")[0] == 503


def until_heartbeat(platform: Platform) -> None:
    """Return after the next heartbeat: a loss that none falls into goes unnoticed, as the documents say."""
    since = now_ms()
    until(lambda: any(int(platform.redis.get(key) or 0) > since for key in platform.redis.scan_iter("tw:health:*")))


def shut_down(server: Redis) -> None:
    server.stop()
    server.start()


def kill(server: Redis) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("fault", [shut_down, kill])
def test_a_redis_that_ends_and_comes_back_with_its_data_needs_no_hand(
    fragile: Platform, redis_server: Redis, undisturbed: Platform, fault: Callable[[Redis], None]
) -> None:
    fragile.start_worker()
    with uploading(fragile, write_catalogue(fragile.folder), every_s=0.2):
        for _ in range(3):
            until_more(fragile, 5)
            fault(redis_server)
        until_more(fragile, 5)
    fragile.assert_ended_like(undisturbed)
    assert not logged(fragile, "redis.lost_writes")


def test_a_redis_that_hangs_for_twenty_seconds_delays_and_changes_nothing(
    fragile: Platform, redis_server: Redis, undisturbed: Platform
) -> None:
    fragile.start_worker()
    with uploading(fragile, write_catalogue(fragile.folder), every_s=0.2):
        until_more(fragile, 5)
        redis_server.pause()
        until(lambda: not_ready(fragile))
        time.sleep(20)  # the fault itself
        assert fragile.workers[0].poll() is None
        redis_server.resume()
        until_more(fragile, 5)
    fragile.until_ready()
    fragile.assert_ended_like(undisturbed)
    assert not logged(fragile, "redis.lost_writes")


def heal(platform: Platform, undisturbed: Platform, lost: set[str]) -> None:
    """Rewind as an operator does, and prove that what was lost is back."""
    platform.settled()
    assert lost
    assert lost.isdisjoint(platform.tracks_held())
    until(lambda: logged(platform, "redis.lost_writes"))
    assert "tastewave_redis_lost_writes_total 1.0" in platform.health("/metrics")[1]
    stop(platform)
    platform.run("rewind", "tracks", "--minutes", MINUTES)
    platform.start_worker()
    platform.assert_ended_like(undisturbed)
    assert lost <= platform.tracks_held()


def test_a_power_cut_that_takes_the_end_of_the_append_only_file_is_healed_by_a_rewind(
    fragile: Platform, redis_server: Redis, undisturbed: Platform
) -> None:
    fragile.start_worker()
    with uploading(fragile, write_catalogue(fragile.folder), every_s=0.2):
        until_more(fragile, 10)
        (file,) = (redis_server.folder / "appendonlydir").glob("*.incr.aof")
        written = file.stat().st_size
        before = fragile.tracks_held()
        until_more(fragile, 10)
    fragile.settled()
    until_heartbeat(fragile)
    lost = fragile.tracks_held() - before
    redis_server.kill()
    os.truncate(file, written)  # with appendfsync everysec, the last second may not be on the disk
    redis_server.start()
    heal(fragile, undisturbed, lost - fragile.tracks_held())


def test_answers_that_a_failover_lost_are_healed_by_a_rewind(
    fragile: Platform, redis_server: Redis, undisturbed: Platform
) -> None:
    replica = Redis(replica_of=redis_server)
    with replica:
        fragile.start_worker()
        with uploading(fragile, write_catalogue(fragile.folder), every_s=0.2):
            until_more(fragile, 10)
            with ask(replica) as client:
                client.replicaof("127.0.0.1", 1)  # cut the link: the replica gets nothing of what follows
                copied = len([*client.scan_iter("tw:*:track:*", count=1000)])
            until_more(fragile, 10)
        fragile.settled()
        until_heartbeat(fragile)
        before = fragile.tracks_held()
        redis_server.kill()
        with ask(replica) as client:
            client.replicaof("NO", "ONE")
        replica.stop()
        with Redis(folder=replica.folder, port=redis_server.port):  # promoted, and at the address that workers use
            assert len(fragile.tracks_held()) >= copied
            heal(fragile, undisturbed, before - fragile.tracks_held())


def test_a_redis_that_came_back_empty_is_filled_again_and_the_same_release_is_live(
    fragile: Platform, redis_server: Redis, undisturbed: Platform
) -> None:
    fragile.redis.hset(LIVE_KEY, mapping={"contract": 1, "release": "0123456789ab", "previous": "", "since": 1})
    fragile.start_worker()
    with uploading(fragile, write_catalogue(fragile.folder), every_s=0.2):
        until_more(fragile, 10)
    fragile.settled()
    fragile.until_ready()
    lost = fragile.tracks_held()
    fragile.redis.flushall()
    until(lambda: fragile.redis.hget(LIVE_KEY, "release") == b"0123456789ab")
    heal(fragile, undisturbed, lost)


class Address:
    """A loopback address that forwards to one server or another, as the virtual address of a failover does."""

    def __init__(self, server: Redis) -> None:
        self.server = server

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.server.port)
        with contextlib.closing(writer), contextlib.closing(back):
            await asyncio.wait(
                [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


@pytest.mark.parametrize("batch", [False, True], ids=["one command", "a batch"])
async def test_a_client_whose_primary_became_a_replica_finds_the_new_one_at_the_same_address(
    redis_server: Redis, batch: bool
) -> None:
    with Redis(replica_of=redis_server) as successor, ask(successor) as new, ask(redis_server) as old:
        address = Address(redis_server)
        listener = await asyncio.start_server(address, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        settings = load_settings(redis_url=f"redis://127.0.0.1:{port}")
        client = async_client(settings.redis)
        histories = HistoryStore(client, settings.users)

        async def write(name: str) -> None:
            if batch:
                await histories.add({name: CHANGE})
            else:
                await client.set(history_key(name), 1)

        await write("before")
        address.server = successor
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", successor.port)
        with pytest.raises(redis.exceptions.ReadOnlyError) as refused:
            await write("after")
        assert is_redis_away(refused.value)
        await write("after")
        assert new.exists(history_key("after"))
        await client.aclose()
        listener.close()


# --- refusals: nothing of them is a track's fault


def documented_rights() -> str:
    """The ACL of the production chapter."""
    (rights,) = re.findall(r"^ACL SETUSER tastewave on >PASSWORD (.+)$", PRODUCTION.read_text(), re.MULTILINE)
    return rights


def redis_problem(platform: Platform, number: int = 0) -> str:
    status, report = platform.health("/ready", number)
    return json.loads(report)["problems"].get("redis", "") if status else ""


def test_a_worker_with_the_documented_rights_works_and_without_one_of_them_it_says_so_and_waits(
    fragile: Platform, redis_server: Redis
) -> None:
    file = write_music(fragile.folder / "track.wav")
    with ask(redis_server) as client:
        client.execute_command("ACL", "SETUSER", "tastewave", "on", ">secret99", *documented_rights().split())
        fragile.start_worker(redis_url=redis_server.url.replace("//", "//tastewave:secret99@"), store_taggram="true")
        fragile.until_ready()
        assert fragile.wait_for(fragile.upload(file.as_uri())).status != "failed"
        client.execute_command("ACL", "SETUSER", "tastewave", "-hset")
        problem = until(lambda: redis_problem(fragile))  # before any record has needed it
        assert "grant its user the keys and commands of deploy/docs/production.md" in problem
        late = fragile.upload(file.as_uri())
        until(lambda: json.loads(fragile.health("/ready")[1])["partitions"] and fragile.lag() == 1)
        until(lambda: "tastewave_in_hand_records 1.0" in fragile.health("/metrics")[1])
        client.execute_command("ACL", "SETUSER", "tastewave", "+hset")
    assert fragile.wait_for(late).status != "failed"
    fragile.until_ready()
    assert fragile.dead_letters() == []
    assert "Traceback" not in fragile.worker_log()


async def test_the_documented_rights_are_enough_for_users_and_with_those_of_forget_for_forgetting(
    redis_server: Redis,
) -> None:
    further = re.findall(r"also needs `(\+[^`]+)`", PRODUCTION.read_text())[0]
    with ask(redis_server) as client:
        rights = ["on", ">secret99", *documented_rights().split()]
        client.execute_command("ACL", "SETUSER", "tastewave", *rights)
        client.execute_command("ACL", "SETUSER", "operator", *rights, *further.split())
    urls = [redis_server.url.replace("//", f"//{name}:secret99@") for name in ("tastewave", "operator")]
    worker, operator = (async_client(load_settings(redis_url=url).redis) for url in urls)
    histories = HistoryStore(worker, load_settings().users)
    users = UserStore(worker, "0123456789ab", ttl=1000)
    await histories.rehearse()
    await users.rehearse()
    await register_release(worker, "0123456789ab")
    await histories.add({"u1": CHANGE})
    assert await users.get(["u1"]) == [None]
    assert await users.revisions(["u1"]) == [None]
    releases = [release.decode() for release in await operator.smembers("tw:releases")]
    assert releases == ["0123456789ab"]
    assert (await forget_user(operator, "u1", LIKE.at, releases=releases)).listens == 1
    assert (await forget_track(operator, "t1", 5, releases=releases)).forgotten_at == 5
    await worker.aclose()
    await operator.aclose()


def test_a_worker_that_starts_without_rights_waits_for_them(fragile: Platform, redis_server: Redis) -> None:
    event = fragile.upload(write_music(fragile.folder / "track.wav").as_uri())
    with ask(redis_server) as client:
        client.execute_command("ACL", "SETUSER", "tastewave", "on", ">secret99", "~other:*", "+@all")
        fragile.start_worker(redis_url=redis_server.url.replace("//", "//tastewave:secret99@"))
        assert "production.md" in until(lambda: redis_problem(fragile))
        client.execute_command("ACL", "SETUSER", "tastewave", "~tw:*")
    assert fragile.wait_for(event).status != "failed"
    assert "Traceback" not in fragile.worker_log()


def test_a_foreign_key_holds_up_its_own_track_alone_and_is_named_until_it_is_gone(
    fragile: Platform, redis_server: Redis
) -> None:
    file = write_music(fragile.folder / "track.wav")
    key = track_key(fragile.release, "mine")
    fragile.redis.set(key, "foreign")
    fragile.start_worker()
    fragile.until_ready()
    event = fragile.upload(file.as_uri(), track_id="mine")
    assert repr(key) in until(lambda: redis_problem(fragile))
    assert fragile.wait_for(fragile.upload(file.as_uri())).status != "failed"
    assert fragile.redis.get(key) == b"foreign"
    fragile.redis.delete(key)
    assert fragile.wait_for(event).status != "failed"
    fragile.until_ready()
    assert fragile.dead_letters() == []


def last_words(platform: Platform, **settings: str) -> str:
    """What a worker says that cannot start."""
    worker = platform.start_worker(**settings)
    assert worker.wait(60) == 1
    log = platform.worker_log(len(platform.workers) - 1)
    assert "Traceback" not in log
    *_, last = log.splitlines()
    return last


def test_what_only_another_setting_can_mend_ends_the_start_in_one_sentence(fragile: Platform) -> None:
    url = fragile.environment["TASTEWAVE_REDIS_URL"]
    assert "name a database that it has in TASTEWAVE_REDIS_URL" in last_words(fragile, redis_url=url[:-1] + "4711")
    tls = url.replace("redis://", "rediss://") + "?ssl_ca_certs=/none/ca.pem"
    assert "TLS to Redis cannot be set up (No such file or directory)" in last_words(fragile, redis_url=tls)
    assert "TASTEWAVE_REDIS_URL cannot be read" in last_words(fragile, redis_url=url + "?no_such_option=1")


def test_a_node_of_a_cluster_that_is_taken_for_a_single_server_ends_the_start_in_one_sentence(
    clustered: Platform, cluster: RedisCluster
) -> None:
    owner = clustered.redis.get_node_from_key(LIVE_KEY).port
    other = next(node for node in cluster.nodes if node.port != owner)
    said = last_words(clustered, redis_cluster="false", redis_url=other.url)
    assert said.startswith(f"Error: Redis at 127.0.0.1:{other.port} cannot be used")
    assert said.endswith("it is a node of a Cluster: set TASTEWAVE_REDIS_CLUSTER=true")


# --- Cluster


def ids_of_slot(slot: int) -> Iterator[str]:
    """Track ids whose keys are in a slot."""
    return (track_id for number in itertools.count() if key_slot((track_id := f"t{number}").encode()) == slot)


class MovingSlot:
    """A slot that moves from one master to another, one key at a time."""

    def __init__(self, cluster: RedisCluster, *, source: Redis, target: Redis) -> None:
        self.clients = {node: ask(node) for node in cluster.nodes}
        self.source, self.target = source, target
        ids = {node: client.cluster("myid") for node, client in self.clients.items()}
        self.target_id = ids[target]
        slots = self.clients[source].cluster("slots")
        self.slot = next(first for first, _, (_, port, *_) in slots if port == source.port)
        self.clients[target].execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", ids[source])
        self.clients[source].execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", self.target_id)

    def move(self, key: str) -> None:
        moved = self.clients[self.source].execute_command("MIGRATE", "127.0.0.1", self.target.port, key, 0, 5000)
        assert moved == "OK"

    def arrive(self) -> None:
        while keys := self.clients[self.source].execute_command("CLUSTER GETKEYSINSLOT", self.slot, 100):
            for key in keys:
                self.move(key)
        for node in (self.target, self.source, *self.clients):
            self.clients[node].execute_command("CLUSTER SETSLOT", self.slot, "NODE", self.target_id)


@pytest.mark.parametrize("target", ["a master", "a master that has just joined"])
async def test_clients_follow_a_slot_that_is_moving(cluster: RedisCluster, target: str) -> None:
    settings = load_settings(redis_url=cluster.url, redis_cluster=True)
    client = async_client(settings.redis)
    await asyncio.gather(*(client.set(f"t{number}", 1) for number in range(500)))  # many connections to each
    slot = MovingSlot(
        cluster, source=cluster.nodes[0], target=cluster.nodes[1] if target == "a master" else cluster.join()
    )
    ids = [*itertools.islice(ids_of_slot(slot.slot), 8)]
    assert await client.set(ids[0], 2)  # alone too: redis-py takes its connections in turn
    assert await asyncio.gather(*(client.set(track_id, 2) for track_id in ids)) == [True] * 8
    assert await asyncio.gather(*(client.get(track_id) for track_id in ids)) == [b"2"] * 8
    with sync_client(settings.redis) as blocking:
        assert [blocking.get(track_id) for track_id in ids] == [b"2"] * 8
    slot.arrive()
    assert await asyncio.gather(*(client.get(track_id) for track_id in ids)) == [b"2"] * 8
    await client.aclose()


async def test_a_user_with_three_keys_waits_until_its_slot_has_moved(cluster: RedisCluster) -> None:
    settings = load_settings(redis_url=cluster.url, redis_cluster=True)
    client = async_client(settings.redis)
    histories = HistoryStore(client, settings.users, cluster=True)
    slot = MovingSlot(cluster, source=cluster.nodes[0], target=cluster.nodes[1])
    ids = ids_of_slot(slot.slot)
    moving, other = next(ids), next(ids_of_slot(slot.slot + 1))
    with pytest.raises(redis.exceptions.RedisError) as raised:
        await histories.add({moving: CHANGE, other: CHANGE})
    assert is_redis_away(raised.value)
    assert (await histories.read([other]))[other].stored.members == list(CHANGE.history)
    slot.arrive()
    states = await histories.add({moving: CHANGE, other: CHANGE})
    held = (list(CHANGE.history), [(member, feedback_score(at)) for member, at in CHANGE.feedback.items()])
    assert [state.stored for state in states.values()] == [held] * 2
    users = UserStore(client, "0123456789ab", cluster=True, ttl=1000)
    assert await users.revisions([moving, other]) == [None, None]
    with pytest.raises(EventError, match="begins with a brace"):
        await histories.add({"}": CHANGE})
    await client.aclose()


def test_slots_that_move_while_a_worker_writes_change_nothing(
    clustered: Platform, cluster: RedisCluster, undisturbed: Platform
) -> None:
    uris = write_catalogue(clustered.folder)
    clustered.start_worker()
    slot = MovingSlot(cluster, source=cluster.nodes[0], target=cluster.nodes[1])
    ids = ids_of_slot(slot.slot)
    with uploading(clustered, uris, every_s=0.2):
        new = [clustered.upload(uris[0], track_id=track_id) for track_id in itertools.islice(ids, 3)]
        for event in new:
            assert clustered.wait_for(event).status != "failed"
        slot.arrive()
        cluster.move_slots(2000, source=cluster.nodes[0], target=cluster.nodes[2])
        until_more(clustered, 10)
    clustered.assert_ended_like(undisturbed)


def test_a_track_with_two_keys_waits_until_its_slot_has_moved(clustered: Platform, cluster: RedisCluster) -> None:
    file = write_music(clustered.folder / "track.wav")
    clustered.start_worker(store_taggram="true")
    clustered.until_ready()
    slot = MovingSlot(cluster, source=cluster.nodes[0], target=cluster.nodes[1])
    event = clustered.upload(file.as_uri(), track_id=next(ids_of_slot(slot.slot)))
    until(lambda: logged(clustered, "server.away"))
    neighbour = clustered.upload(file.as_uri(), track_id=next(ids_of_slot(slot.slot + 1)))
    assert clustered.wait_for(neighbour).status != "failed"
    assert clustered.held(event.track_id) is None
    slot.arrive()
    assert clustered.wait_for(event).status != "failed"
    clustered.settled()
    assert clustered.output().keys() == {event.track_id, neighbour.track_id}
    assert clustered.dead_letters() == []


def test_a_node_of_a_cluster_that_is_killed_and_comes_back_needs_no_hand(
    clustered: Platform, cluster: RedisCluster, undisturbed: Platform
) -> None:
    clustered.start_worker()
    with uploading(clustered, write_catalogue(clustered.folder), every_s=0.2):
        for node in cluster.nodes[:2]:
            until_more(clustered, 5)
            node.kill()
            until(lambda: not_ready(clustered))
            node.start()
            clustered.until_ready()
        until_more(clustered, 5)
    clustered.assert_ended_like(undisturbed)
    assert not logged(clustered, "redis.lost_writes")


def test_the_commands_work_on_a_cluster(clustered: Platform) -> None:
    clustered.start_worker()
    uploaded = json.loads(clustered.run("upload", str(write_music(clustered.folder / "a.wav")), "--wait", "--json"))
    answer = json.loads(clustered.run("get", "track", uploaded["track_id"], "--json"))
    assert (answer["track_id"], answer["release"]) == (uploaded["track_id"], clustered.release)
    clustered.settled()  # its features are on their topic
    clustered.redis.delete(track_key(clustered.release, uploaded["track_id"]))
    assert "1 tracks" in clustered.run("release", "rescore")
    again = json.loads(clustered.run("get", "track", uploaded["track_id"], "--json"))
    assert (again["status"], again["event_id"]) == (answer["status"], answer["event_id"])
    refused = clustered.try_to_run("release", "activate", "0123456789ab")
    assert "no answer of release 0123456789ab" in refused.stderr
    clustered.redis.hset(track_key("0123456789ab", "another"), "status", "tagged")
    refused = clustered.try_to_run("release", "activate", "0123456789ab")
    assert "covers 0.00 % of all 1 tracks of the live release" in refused.stderr
    assert "go back with" in clustered.run("release", "activate", "0123456789ab", "--force")
    assert clustered.redis.hget(LIVE_KEY, "release") == b"0123456789ab"
