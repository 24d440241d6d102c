"""The process pool on real processes: a crash, a hang and a bloated decoder cost their own track alone."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tracks_platform import write_music

from models.errors import NotAudio, OutOfMemory, ProcessCrashed, ProcessTimedOut, ReleaseError
from models.release import DEFAULT
from stream.pool import TaggerPool


def pool_of(
    *, timeout_s: float = 60.0, memory_mb: int = 1024, processes: int = 1, release: Path = DEFAULT
) -> TaggerPool:
    restarts: list[int] = []
    pool = TaggerPool(
        str(release),
        processes=processes,
        timeout_s=timeout_s,
        memory_mb=memory_mb,
        max_duration_s=3600.0,
        on_restart=lambda: restarts.append(1),
    )
    pool.restarts = restarts
    return pool


@pytest.fixture
async def pool() -> AsyncIterator[TaggerPool]:
    pool = pool_of()
    pool.launch()
    await pool.ready()
    yield pool
    pool.stop()


@pytest.fixture
def track(tmp_path: Path) -> Path:
    return write_music(tmp_path / "track.wav", seconds=4)


def holds(process: psutil.Process, path: Path) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(Path(file.path) == path for file in process.open_files())
    return False


async def until_heard_by_other_than(path: Path, *pids: int) -> psutil.Process:
    """The pool process that has the file open."""
    for _ in range(10_000):
        for child in psutil.Process().children():
            if child.pid not in pids and holds(child, path):
                return child
        await asyncio.sleep(0.002)
    raise AssertionError("no process opened the file")


async def test_a_track_is_heard_and_an_error_of_its_audio_comes_back_as_it_is(pool, track, tmp_path) -> None:
    assert (await pool.tag(str(track))).status in ("tagged", "abstained")
    text = tmp_path / "text.mp3"
    text.write_text("no music")
    with pytest.raises(NotAudio):
        await pool.tag(str(text))
    assert pool.restarts == []


async def test_a_process_that_is_killed_is_replaced_and_its_track_tried_again(pool, tmp_path) -> None:
    long = write_music(tmp_path / "long.flac", seconds=200)
    hearing = asyncio.create_task(pool.tag(str(long)))
    (await until_heard_by_other_than(long)).kill()
    assert (await hearing).status in ("tagged", "abstained")
    assert pool.restarts == [1]


async def test_a_track_that_kills_its_process_twice_is_given_up_and_the_next_one_heard(pool, track, tmp_path) -> None:
    long = write_music(tmp_path / "long.flac", seconds=200)
    hearing = asyncio.create_task(pool.tag(str(long)))
    first = await until_heard_by_other_than(long)
    first.kill()
    (await until_heard_by_other_than(long, first.pid)).kill()
    with pytest.raises(ProcessCrashed, match="died 2 times"):
        await hearing
    assert (await pool.tag(str(track))).status in ("tagged", "abstained")


async def test_a_process_that_dies_between_tracks_is_replaced(track) -> None:
    pool = pool_of(processes=2)
    try:
        pool.launch()
        await pool.ready()
        idle = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        idle[0].kill()
        psutil.wait_procs(idle[:1], timeout=10)
        for _ in range(6):
            assert (await pool.tag(str(track))).status in ("tagged", "abstained")
    finally:
        pool.stop()


async def test_a_release_that_cannot_be_used_is_told_as_it_is(tmp_path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "release")
    (tmp_path / "release" / "genre.npz").write_bytes(b"damaged")
    pool = pool_of(release=tmp_path / "release")
    try:
        pool.launch()
        with pytest.raises(ReleaseError, match=r"genre\.npz"):
            await pool.ready()
    finally:
        pool.stop()


async def test_a_decoder_that_hangs_is_ended_and_the_next_track_is_heard(track, tmp_path) -> None:
    pool = pool_of(timeout_s=2.0)
    try:
        pool.launch()
        await pool.ready()
        fifo = tmp_path / "never.wav"
        os.mkfifo(fifo)  # opening it for reading blocks for ever
        with pytest.raises(ProcessTimedOut, match="over 2 s"):
            await pool.tag(str(fifo))
        assert pool.restarts == [1]
        assert (await pool.tag(str(track))).status in ("tagged", "abstained")
    finally:
        pool.stop()


async def test_a_track_that_needs_more_memory_than_allowed_is_given_up_alone(track, tmp_path) -> None:
    pool = pool_of(memory_mb=8)
    try:
        pool.launch()
        await pool.ready()
        big = write_music(tmp_path / "big.flac", seconds=100, sample_rate=48_000)
        with pytest.raises(OutOfMemory, match="task_memory_mb"):
            await pool.tag(str(big))
        assert (await pool.tag(str(track))).status in ("tagged", "abstained")
    finally:
        pool.stop()


async def test_no_process_is_left_behind(track) -> None:
    pool = pool_of(processes=2)
    pool.launch()
    await pool.ready()
    processes = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(processes) == 2
    pool.stop()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
