"""What the launcher promises: its servers answer, keep their data, and end with the process that started them."""

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from deploy.local import Kafka, KafkaCluster, LaunchError, Redis, RedisCluster, kafka_server
from deploy.local import __main__ as shell
from deploy.local.process import free_port, is_free
from tests.platform.clock import until

ROOT = Path(__file__).parents[2]


def ask(server: Redis) -> redis.Redis:
    return redis.Redis(port=server.port, socket_timeout=5.0, decode_responses=True)


def wait_for_end(pid: int) -> bool:
    """Whether the process has ended within 10 s."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended = select.poll()
    ended.register(process, select.POLLIN)
    try:
        return bool(ended.poll(10_000))
    finally:
        os.close(process)


@pytest.mark.servers
def test_an_acknowledged_record_is_there_after_the_broker_was_killed_and_restarted(kafka: Kafka):
    partition, brokers = TopicPartition("kept", 0), kafka.brokers
    with closing(KafkaAdminClient(bootstrap_servers=brokers)) as admin:
        admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
    with closing(KafkaProducer(bootstrap_servers=brokers, acks="all")) as producer:
        producer.send("kept", b"before the crash").get(timeout=30)

    kafka.kill()
    kafka.restart()

    assert kafka.brokers == brokers
    with closing(KafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest")) as consumer:
        consumer.assign([partition])
        records = consumer.poll(timeout_ms=30_000)
    assert [record.value for record in records[partition]] == [b"before the crash"]


@pytest.mark.servers
def test_a_cluster_of_three_takes_writes_while_one_is_away_and_takes_it_back():
    with KafkaCluster() as cluster:
        with closing(KafkaAdminClient(bootstrap_servers=cluster.brokers)) as admin:
            configs = {"min.insync.replicas": "2"}
            admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 3, "configs": configs}})
            admin.wait_for_topics(["kept"])
            # whichever broker is asked may not have heard of the partition yet
            (partition,) = until(lambda: admin.describe_topics(["kept"])[0]["partitions"])
            leader = cluster.node(partition["leader_id"])
            assert sorted(partition["isr_nodes"]) == [1, 2, 3]

            leader.kill()
            with closing(KafkaProducer(bootstrap_servers=cluster.brokers, acks="all")) as producer:
                producer.send("kept", b"with one away").get(timeout=60)
            leader.restart()
            until_in_sync(admin, "kept", replicas=3)

        with closing(KafkaConsumer(bootstrap_servers=cluster.brokers, auto_offset_reset="earliest")) as consumer:
            consumer.assign([TopicPartition("kept", 0)])
            assert [record.value for records in consumer.poll(timeout_ms=30_000).values() for record in records] == [
                b"with one away"
            ]
        folders = [node.folder for node in cluster.nodes]
    assert not any(folder.exists() for folder in folders)


def until_in_sync(admin: KafkaAdminClient, topic: str, *, replicas: int) -> None:
    """Return when every partition of a topic has that many replicas in sync; fails after 60 s."""
    deadline = time.monotonic() + 60.0
    while any(len(part["isr_nodes"]) < replicas for part in admin.describe_topics([topic])[0]["partitions"]):
        assert time.monotonic() < deadline, f"{topic} has no {replicas} replicas in sync"
        time.sleep(0.1)


@pytest.mark.servers
def test_a_topic_that_nobody_created_is_an_error(servers):
    producer = KafkaProducer(bootstrap_servers=servers.kafka.brokers, max_block_ms=500)
    with closing(producer), pytest.raises(KafkaError):
        producer.send("never-created", b"").get(timeout=30)


@pytest.mark.servers
def test_a_test_gets_an_empty_redis_and_topics_of_its_own(servers, environment, request):
    assert environment["TASTEWAVE_KAFKA_BROKERS"] == servers.kafka.brokers
    assert environment["TASTEWAVE_TOPIC_PREFIX"].startswith("test-a-test-gets-an-empty-redis")
    with ask(servers.redis) as client:
        assert client.dbsize() == 0


@pytest.mark.servers
def test_what_redis_answered_for_is_there_after_it_was_killed_and_restarted(redis_server: Redis):
    with ask(redis_server) as client:
        client.set("tw:live", "abc")
    redis_server.kill()
    redis_server.restart()
    with ask(redis_server) as client:
        assert client.get("tw:live") == "abc"


@pytest.mark.servers
def test_redis_evicts_nothing_writes_everything_down_and_keeps_histories_small(redis_server: Redis):
    with ask(redis_server) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.zadd("history", {f"track-{n}": n for n in range(511)})
        client.zadd("history", {"a" * (13 + 256): 512})
        assert client.object("encoding", "history") == "listpack"
        client.hset("user", "embedding", "a" * 160)
        assert client.object("encoding", "user") == "listpack"


@pytest.mark.servers
def test_a_paused_server_keeps_connections_and_answers_again_when_resumed(redis_server: Redis):
    with redis.Redis(port=redis_server.port, socket_timeout=0.2, retry=None) as client:
        assert client.ping()
        redis_server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        redis_server.resume()
        assert client.ping()


@pytest.mark.servers
def test_a_paused_server_can_be_stopped(redis_server: Redis):
    pid = redis_server.pid
    redis_server.pause()
    redis_server.stop()
    assert wait_for_end(pid)


@pytest.mark.servers
def test_a_replica_holds_what_its_primary_acknowledged_and_can_take_its_place(redis_server: Redis):
    with Redis(replica_of=redis_server) as replica:
        with ask(redis_server) as client:
            client.set("kept", 1)
            assert client.wait(1, 10_000) == 1
        redis_server.kill()
        with ask(replica) as client:
            client.replicaof("NO", "ONE")
        replica.stop()
        with Redis(folder=replica.folder, port=redis_server.port) as successor, ask(successor) as client:
            assert client.get("kept") == "1"
            client.set("taken", 1)


@pytest.mark.servers
def test_a_redis_cluster_is_formed_takes_a_node_and_moves_slots_and_takes_a_killed_node_back():
    with RedisCluster() as cluster:
        with redis.RedisCluster.from_url(cluster.url) as client:
            for number in range(100):
                client.set(f"key-{number}", number)
            assert len({client.get_node_from_key(f"key-{number}").name for number in range(100)}) == 3
        cluster.move_slots(50, source=cluster.nodes[0], target=cluster.join())
        cluster.nodes[0].kill()
        cluster.nodes[0].restart()
        with redis.RedisCluster.from_url(cluster.url) as client:
            assert len(client.get_primaries()) == 4
            assert [int(client.get(f"key-{number}")) for number in range(100)] == [*range(100)]
        folders = [node.folder for node in cluster.nodes]
    assert not any(folder.exists() for folder in folders)


@pytest.mark.servers
def test_stopping_one_server_leaves_the_others_alone(redis_server: Redis):
    with Redis() as other:
        assert other.port != redis_server.port
    assert not other.folder.exists()
    with ask(redis_server) as client:
        assert client.ping()


def test_a_server_that_fails_to_start_shows_the_end_of_its_log(tmp_path: Path):
    (tmp_path / "appendonlydir").write_text("a file where Redis wants a folder")
    with pytest.raises(LaunchError, match=r"Redis ended with status 1:\n(.*\n)*.*appendonlydir"):
        Redis(folder=tmp_path).start()


def test_a_taken_port_is_refused_rather_than_taken_for_an_answer(redis_server: Redis, tmp_path: Path):
    with pytest.raises(LaunchError, match=f"Redis needs port {redis_server.port}, which is taken"):
        Redis(folder=tmp_path, port=redis_server.port).start()


def test_a_missing_program_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"is not installed; run deploy/local/system\.sh"):
        Redis(folder=tmp_path).start()


def test_a_stopped_server_says_that_it_is_not_running(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"Redis is not running; call start\(\) first"):
        Redis(folder=tmp_path).kill()


def test_servers_die_with_the_process_that_started_them(tmp_path: Path):
    program = f"""
        import signal
        from pathlib import Path
        from deploy.local import Redis
        print(Redis(folder=Path({str(tmp_path)!r})).start().pid, flush=True)
        signal.pause()
        """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        pid = int(parent.stdout.readline())
        assert shell.start_ticks(pid) is not None
        parent.kill()
    assert wait_for_end(pid)


def test_a_free_port_lies_below_those_of_outgoing_connections():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [free_port() for _ in range(50)]
    assert all(is_free(port) and 1024 <= port < lowest for port in ports)


def test_a_free_port_is_given_to_nobody_else_before_a_server_listens_there(monkeypatch):
    held = free_port()
    drawn = iter([held, held, held + 1, held + 2, held + 3, held + 4])
    monkeypatch.setattr("random.SystemRandom.randrange", lambda *_: next(drawn))
    assert is_free(held)
    assert free_port() > held


@pytest.mark.servers
def test_up_starts_both_once_and_down_stops_only_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_server: Redis
):
    monkeypatch.setattr(shell, "FOLDER", tmp_path)
    monkeypatch.setattr(shell, "USUAL_PORTS", {"kafka": free_port(), "redis": redis_server.port})
    command = CliRunner().invoke
    assert isinstance(command(shell.cli, ["env"]).exception, LaunchError)
    try:
        first = command(shell.cli, ["up"])
        assert first.exit_code == 0, first.output
        running = shell.read_running()
        again = command(shell.cli, ["up"])
        assert again.output == first.output
        assert command(shell.cli, ["status"]).exit_code == 0

        assert running["redis"].port != redis_server.port  # the usual port was taken
        assert command(shell.cli, ["env"]).output.splitlines() == [
            f"export TASTEWAVE_KAFKA_BROKERS=127.0.0.1:{shell.USUAL_PORTS['kafka']}",
            f"export TASTEWAVE_REDIS_URL=redis://127.0.0.1:{running['redis'].port}/0",
        ]
        with redis.Redis(port=running["redis"].port) as client:
            client.set("kept", 1)
    finally:
        assert command(shell.cli, ["down"]).output == "kafka stopped\nredis stopped\n"
    for server in running.values():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(server.pid, 0)  # `up` ran in this process: a later test would find its zombies
    assert command(shell.cli, ["status"]).exit_code == 1
    assert command(shell.cli, ["down"]).output == "nothing was running\n"
    with ask(redis_server) as client:
        assert client.ping()


@pytest.mark.servers
def test_what_up_kept_is_there_at_the_next_up(tmp_path: Path):
    with Redis(folder=tmp_path) as server, ask(server) as client:
        client.set("kept", 1)
    with Redis(folder=tmp_path) as server, ask(server) as client:
        assert client.get("kept") == "1"


def test_a_later_process_with_the_same_id_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(shell, "FOLDER", tmp_path)
    mine, ticks = os.getpid(), shell.start_ticks(os.getpid())
    state = tmp_path / "state.json"
    state.write_text(f'{{"redis": {{"pid": {mine}, "start_ticks": {ticks}, "port": 1}}}}')
    assert set(shell.read_running()) == {"redis"}
    state.write_text(f'{{"redis": {{"pid": {mine}, "start_ticks": {ticks - 1}, "port": 1}}}}')
    assert shell.read_running() == {}


def test_down_ends_a_server_that_does_not_listen_to_sigterm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shell, "STOP_TIMEOUT_MS", 200)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as stubborn:
        assert stubborn.stdout.readline() == "ready\n"
        shell.stop(shell.Started(stubborn.pid, shell.start_ticks(stubborn.pid), 1))
        assert stubborn.wait(10) == -signal.SIGKILL


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mvn, first on the path, that counts its runs and brings nothing."""
    program = tmp_path / "bin" / "mvn"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path / 'runs'}\necho cannot reach the repository\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_jars_that_cannot_be_fetched_leave_nothing_behind(maven: Path, tmp_path: Path):
    with pytest.raises(LaunchError, match=r"mvn ended with status 3, try again:\ncannot reach the repository"):
        kafka_server.prepare(cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_processes_that_need_the_jars_at_once_fetch_them_once(
    maven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ready = kafka_server.prepare()  # the real ones, for the fake mvn to bring
    maven.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            echo run >> {tmp_path / "runs"}
            for word; do case "$word" in -DoutputDirectory=*) cp -r {ready / "jars"} "${{word#*=}}";; esac; done
            """)
    )
    monkeypatch.setattr(kafka_server, "_Recording", FakeRecording)
    homes: list[Path] = []
    threads = [
        threading.Thread(target=lambda: homes.append(kafka_server.prepare(cache=tmp_path / "cache"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert homes == [homes[0]] * 3
    assert (tmp_path / "runs").read_text() == "run\n"
    assert sorted(path.name for path in homes[0].iterdir()) == ["classes.jsa", "formatted", "jars"]


class FakeRecording:
    """Stands in for the 10 s of recording a class archive."""

    def __init__(self, home: Path) -> None:
        self.archive = home / "recorded"

    def start(self) -> None:
        self.archive.touch()

    def stop(self) -> None: ...

    def close(self) -> None: ...
