"""The process pool on real processes: a crash, a hang or a bloated decoder fails its own track and no other."""

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from onnx import helper

from models.errors import FetchFailed, NotAudio, OutOfMemory, ProcessCrashed, ProcessTimedOut, ReleaseError
from models.release import DEFAULT, load_release
from models.sealed_folder import describe_file
from models.tagger import Tagger
from models.tagging import Tagging
from stream.audio import sandbox
from stream.audio.machine import MachineUnusable
from stream.audio.pool import PoolUnusable, TaggerPool
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.encoders import write_filterbank, write_mean_mel, write_network
from tests.platform.music import write_music


class Pool(TaggerPool):
    """A pool that counts its restarts, and takes paths."""

    def __init__(
        self, *, timeout_s: float = 60.0, memory_mb: int = 1024, processes: int = 1, release: Path = DEFAULT
    ) -> None:
        self.restarts = 0
        super().__init__(
            str(release), processes=processes, timeout_s=timeout_s, memory_mb=memory_mb, max_duration_s=3600.0,
            on_restart=self._count,
        )  # fmt: skip

    def _count(self) -> None:
        self.restarts += 1

    async def tag_file(self, path: Path) -> Tagging:
        with path.open("rb") as file:
            return await self.tag(file)


def children() -> list[psutil.Process]:
    """The pool processes, zombies included."""

    def is_ours(process: psutil.Process) -> bool:
        try:
            return "stream.audio.pool_process" in " ".join(process.cmdline())
        except psutil.ZombieProcess:
            return True

    return [child for child in psutil.Process().children() if is_ours(child)]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool()
    pool.launch()
    await pool.ready()
    yield pool
    pool.stop()


@pytest.fixture
def track(tmp_path: Path) -> Path:
    return write_music(tmp_path / "track.wav", seconds=4)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    return write_music(tmp_path / "long.flac", seconds=200)


async def until_heard_by_other_than(path: Path, *pids: int) -> psutil.Process:
    """The pool process that has the file open."""
    for _ in range(10_000):
        for child in children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.pid not in pids and any(Path(file.path) == path for file in child.open_files()):
                    return child
        await asyncio.sleep(0.002)
    raise AssertionError("no process opened the file")


async def test_a_track_is_heard_and_an_error_of_its_audio_comes_back_as_it_is(pool, track, tmp_path) -> None:
    assert (await pool.tag_file(track)).status in ("tagged", "abstained")
    text = tmp_path / "text.mp3"
    text.write_text("no music")
    with pytest.raises(NotAudio, match="b'no music'"):
        await pool.tag_file(text)
    assert pool.restarts == 0


async def test_the_artist_of_a_track_counts_where_the_release_knows_it(track, tmp_path) -> None:
    release = taste.write_release_that_hears_artists(tmp_path / "release", {"first": "jazz", "ö" * 128: "metal"})
    pool = Pool(release=release)
    try:
        pool.launch()
        await pool.ready()
        for artist, genre in (("first", "jazz"), ("ö" * 128, "metal"), ("first", "jazz")):
            with track.open("rb") as file:
                assert (await pool.tag(file, artist_id=artist)).genres[0][0] == genre
        plain = (await pool.tag_file(track)).genres
        with track.open("rb") as file:
            assert (await pool.tag(file, artist_id="somebody else")).genres == plain
        assert pool.restarts == 0
    finally:
        pool.stop()


async def test_a_process_that_is_killed_is_replaced_and_its_track_tried_again(pool, long) -> None:
    hearing = asyncio.create_task(pool.tag_file(long))
    (await until_heard_by_other_than(long)).kill()
    assert (await hearing).status in ("tagged", "abstained")
    assert pool.restarts == 1


async def test_a_track_that_kills_its_process_twice_is_given_up_and_the_next_one_heard(pool, track, long) -> None:
    hearing = asyncio.create_task(pool.tag_file(long))
    first = await until_heard_by_other_than(long)
    first.kill()
    (await until_heard_by_other_than(long, first.pid)).kill()
    with pytest.raises(ProcessCrashed, match="died 2 times"):
        await hearing
    assert (await pool.tag_file(track)).status in ("tagged", "abstained")


async def test_a_process_that_dies_between_tracks_is_replaced(track) -> None:
    pool = Pool(processes=2)
    try:
        pool.launch()
        await pool.ready()
        idle = children()
        idle[0].kill()
        for _ in range(6):
            assert (await pool.tag_file(track)).status in ("tagged", "abstained")
        assert pool.restarts <= 1
    finally:
        pool.stop()


async def test_a_track_that_nobody_waits_for_does_not_answer_for_the_next_one(pool, track, long) -> None:
    hearing = asyncio.create_task(pool.tag_file(long))
    await until_heard_by_other_than(long)
    hearing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hearing
    assert (await pool.tag_file(track)).duration_s == 4.0


async def test_a_release_that_cannot_be_used_is_told_as_it_is(tmp_path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "release")
    (tmp_path / "release" / "genre.npz").write_bytes(b"damaged")
    pool = Pool(release=tmp_path / "release")
    try:
        pool.launch()
        with pytest.raises(ReleaseError, match=r"genre\.npz"):
            await pool.ready()
    finally:
        pool.stop()


async def test_a_network_of_a_release_that_gives_no_numbers_is_told_as_it_is(tmp_path) -> None:
    mels = write_mean_mel(tmp_path / "mels", frames=938)
    network, manifest = mels / "audio_encoder.onnx", mels / "audio_encoder.json"
    before = describe_file(network)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Log", ["mean"], ["y"]),  # of decibels, which are negative
    ]
    write_network(network, nodes, takes=[1, 938, 96], gives=[1, 96], weights={})
    after = describe_file(network)
    text = manifest.read_text().replace(before.sha256, after.sha256)
    manifest.write_text(text.replace(f'"bytes": {before.bytes}', f'"bytes": {after.bytes}'))
    pool = Pool(release=taste.write_release(tmp_path / "release", None, blocks={"mels": mels}))
    try:
        pool.launch()
        with pytest.raises(ReleaseError, match="mean mel gave numbers that are not finite"):
            await pool.ready()
    finally:
        pool.stop()


async def test_where_no_process_can_be_started_the_track_is_not_to_blame_and_later_all_is_well(tmp_path, track) -> None:
    release = shutil.copytree(DEFAULT, tmp_path / "release")
    pool = Pool(release=release)
    try:
        pool.launch()
        await pool.ready()
        release.rename(tmp_path / "away")
        children()[0].kill()
        for _ in range(2):
            with pytest.raises(PoolUnusable, match="no pool process can be started"):
                await pool.tag_file(track)
        assert pool.trouble
        (tmp_path / "away").rename(release)
        assert (await pool.tag_file(track)).status in ("tagged", "abstained")
        assert pool.trouble is None
    finally:
        pool.stop()


async def test_a_decoder_that_hangs_is_ended_and_the_next_track_is_heard(track, long) -> None:
    pool = Pool(timeout_s=4.0)
    try:
        pool.launch()
        await pool.ready()
        hearing = asyncio.create_task(pool.tag_file(long))
        (await until_heard_by_other_than(long)).suspend()
        with pytest.raises(ProcessTimedOut, match="over 4 s"):
            await hearing
        assert children() == []  # nothing is left of it, not even a zombie
        assert (await pool.tag_file(track)).status in ("tagged", "abstained")
    finally:
        pool.stop()


async def test_a_track_that_needs_more_memory_than_allowed_is_given_up_alone(track, tmp_path) -> None:
    pool = Pool(memory_mb=8)
    try:
        pool.launch()
        await pool.ready()
        big = write_music(tmp_path / "big.flac", seconds=100, sample_rate=48_000)
        with pytest.raises(OutOfMemory, match="TASTEWAVE_TASK_MEMORY_MB"):
            await pool.tag_file(big)
        assert (await pool.tag_file(track)).status in ("tagged", "abstained")
    finally:
        pool.stop()


async def test_audio_encoders_hear_inside_the_sandbox_and_within_its_memory(
    tmp_path: Path, long: Path, tower_of: TowerOf
) -> None:
    release = taste.write_release(
        tmp_path / "release",
        tower_of(["known"]),
        audio_encoder=write_filterbank(tmp_path / "encoder", dim=taste.DIM, sample_rate=24_000),
        blocks={"mels": write_mean_mel(tmp_path / "mels", frames=938)},
    )
    pool = Pool(release=release)
    try:
        pool.launch()
        assert await pool.ready() == dict.fromkeys(sandbox.GUARDS, True)
        with long.open("rb") as file:
            heard = await pool.tag(file, track_id="new")
            learned = await pool.tag(file, track_id="known")
        items = load_release(release).user_tower().items
        assert learned.embedding == tuple(items.vectors[0].tolist())
        assert heard.embedding == pytest.approx(Tagger(load_release(release)).tag(long).embedding, abs=1e-5)
        assert pool.restarts == 0
    finally:
        pool.stop()


TAKEN_OVER = """
import socket, sys, msgspec
from models.tagging import Tagging
from stream.audio.messages import LENGTH, Ready
def send(message):
    data = msgspec.msgpack.encode(message)
    channel.sendall(LENGTH.pack(len(data)) + data)
channel = socket.socket(fileno=int(sys.argv[1]))
send(Ready({"rlimit": True, "landlock": True, "seccomp": True}, 3))
while socket.recv_fds(channel, 1000, 1)[1]:
    send(Tagging(status="abstained", genre=None, confidence=0.0, genres=(), tags=(), taggram=b"", embedding=(0.6, 0.8),
                 windows={}, duration_s=1.0, lost_s=0.0, timings_ms={}))
"""


async def test_a_process_that_sends_an_embedding_of_another_space_is_ended(track, monkeypatch) -> None:
    start = subprocess.Popen

    def taken_over(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        module = command.index("-m")
        return start([*command[:module], "-c", TAKEN_OVER, *command[module + 2 :]], **options)

    monkeypatch.setattr("stream.audio.pool.subprocess.Popen", taken_over)
    pool = Pool()
    try:
        pool.launch()
        await pool.ready()
        with pytest.raises(ProcessCrashed, match="died 2 times"):
            await pool.tag_file(track)
        assert pool.restarts == 2
    finally:
        pool.stop()


class Directory:
    """A directory, which has a descriptor and cannot be opened as a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._descriptor


async def test_a_file_that_cannot_be_read_is_told_as_such(pool, track, tmp_path) -> None:
    with pytest.raises(FetchFailed, match="Is a directory"):
        await pool.tag(Directory(tmp_path))
    assert (await pool.tag_file(track)).status in ("tagged", "abstained")


async def test_where_memory_runs_out_the_kernel_ends_a_pool_process_before_the_worker(pool) -> None:
    (process,) = children()
    score = lambda pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text())  # noqa: E731
    assert score(process.pid) == min(1000, score(os.getpid()) + 300)
    assert score(process.pid) > score(os.getpid()) or score(os.getpid()) == 1000


def test_a_machine_that_takes_no_more_processes_is_one_sentence(monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(PoolUnusable, match=r"Resource temporarily unavailable\); see what the machine lacks"):
        Pool().launch()


async def test_a_file_that_cannot_be_handed_over_for_want_of_descriptors_is_not_to_blame(pool, track) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with track.open("rb") as file:
        spare = os.open(os.devnull, os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            with pytest.raises(MachineUnusable, match="ulimit -n"):
                await pool.tag(file)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await pool.tag(file)).status in ("tagged", "abstained")
    assert pool.restarts == 0


async def test_no_process_is_left_behind() -> None:
    pool = Pool(processes=2)
    pool.launch()
    await pool.ready()
    processes = children()
    assert len(processes) == 2
    pool.stop()
    assert not any(process.is_running() for process in processes)


async def test_all_guards_hold_here_and_a_pool_process_has_one_thread_and_none_of_the_secrets(monkeypatch) -> None:
    monkeypatch.setenv("TASTEWAVE_KAFKA_PASSWORD", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    pool = Pool()
    try:
        pool.launch()
        assert await pool.ready() == dict.fromkeys(sandbox.GUARDS, True)
        (process,) = children()
        assert process.num_threads() == 1
        assert "canary" not in process.environ().values()
    finally:
        pool.stop()


# What the code of a file that took over its process would try next. Each line is an attempt that must fail.
ATTEMPTS = {
    "read a file": "open(canary).read()",
    "list a folder": "os.listdir('/')",
    "write a file": "open(canary, 'a')",
    "make a file": "os.open(canary + '2', os.O_CREAT | os.O_WRONLY)",
    "make an unnamed file": "os.open(os.path.dirname(canary), os.O_TMPFILE | os.O_RDWR)",
    "make a file in memory": "os.memfd_create('x')",
    "remove a file": "os.unlink(canary)",
    "rename a file": "os.rename(canary, canary + '2')",
    "link a file": "os.link(canary, canary + '2')",
    "change a file's rights": "os.chmod(canary, 0o777)",
    "truncate a file": "os.truncate(canary, 0)",
    "connect over TCP": "socket.create_connection(('127.0.0.1', port))",
    "connect to a socket in the file system": "socket.socket(socket.AF_UNIX).connect(canary)",
    "send over UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "look up a name": "socket.getaddrinfo('localhost', port)[0]",
    "fork": "os.fork()",
    "run a program": "os.execv('/bin/true', ['true'])",
    "spawn a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "start a thread": "threading.Thread(target=print).start()",
    "signal the worker": "os.kill(os.getppid(), 0)",
    "signal the worker through a descriptor": "own(os.getppid())",
    "signal the worker with F_SETOWN_EX": "fcntl.fcntl(ours, 15, struct.pack('ii', 1, os.getppid()))",
    "choose a descriptor's signal": "fcntl.fcntl(ours, 10, signal.SIGURG)",
    "make a descriptor send signals": "fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)",
    "lock a file": "fcntl.fcntl(held, fcntl.F_SETLK, struct.pack('hhqqi', fcntl.F_RDLCK, 0, 0, 0, 0))",
    "lease a file": "fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "copy a descriptor": "fcntl.fcntl(ours, fcntl.F_DUPFD, 100)",
    "trace the worker": "ptrace(os.getppid())",
    "read the worker's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "change its user": "os.setuid(12345)",
    "raise its memory limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "make a pipe": "os.pipe()",
    "make a socket pair": "socket.socketpair()",
    "mount": "mount()",
}

INTRUDER = """
    import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, threading
    canary, port, has_landlock = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
    ours, theirs = socket.socketpair()
    held = os.open(canary, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    def called(result):
        if result == -1:
            raise OSError(ctypes.get_errno(), "refused")
    def ptrace(pid):
        called(libc.ptrace(16, pid, None, None))
    def own(pid):
        fcntl.fcntl(ours, fcntl.F_SETOWN, pid)
        fcntl.fcntl(ours, 10, signal.SIGURG)
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
        os.write(theirs.fileno(), b"signal")
    def mount():
        called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
    import encodings.idna
    from stream.audio import sandbox
    attempts = {attempts!r}
    if not has_landlock:
        import pyseccomp
        older_kernel = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        older_kernel.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
        older_kernel.load()
    assert sandbox.enter(memory_bytes=2**30) == {"rlimit": True, "landlock": has_landlock, "seccomp": True}
    out = []
    for name, attempt in attempts.items():
        try:
            eval(attempt)
        except OSError as error:
            out += [] if error.errno in (1, 13, socket.EAI_AGAIN) else [(name, error)]
        except (RuntimeError, ValueError) as error:
            out += [] if "start new thread" in str(error) or "raise maximum limit" in str(error) else [(name, error)]
        else:
            out.append(name)
    os.write(1, repr(out).encode())
    os._exit(0)
"""


@pytest.mark.parametrize("has_landlock", [True, False])
def test_what_has_taken_over_a_pool_process_reaches_nothing(has_landlock: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary")
    with socket.create_server(("127.0.0.1", 0)) as forbidden:
        forbidden.setblocking(False)
        script = textwrap.dedent(INTRUDER).replace("{attempts!r}", repr(ATTEMPTS))
        done = subprocess.run(
            [sys.executable, "-c", script, str(canary), str(forbidden.getsockname()[1]), str(has_landlock)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        with pytest.raises(BlockingIOError):
            forbidden.accept()
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]", "")
    assert canary.read_text() == "canary"
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_a_guard_that_the_kernel_lacks_is_reported_and_the_others_hold() -> None:
    script = """
        import errno, pyseccomp
        older_kernel = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        older_kernel.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "landlock_create_ruleset")
        older_kernel.load()
        from stream.audio import sandbox
        print(sandbox.landlock_abi(), sandbox.enter(memory_bytes=2**30))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == f"0 { {'rlimit': True, 'landlock': False, 'seccomp': True} }\n"
