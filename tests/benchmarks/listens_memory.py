"""Memory of a listens worker: over millions of listens, by the number of users, and what the item table adds."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

from listens_path import MIB, TRACKS, USERS, Figures, Load, Rig

DRAINED = 10_000_000
DRAINED_USERS = USERS, 1_000_000
PIECE = 200_000
TABLES, OF_TABLE, SHARING = (TRACKS, 1_000_000), 300_000, 2


def memory(folder: Path) -> Figures:
    """Private memory of a worker by tenth of so many listens, which are made and published while it drains them."""
    figures: Figures = {}
    for users in DRAINED_USERS:
        with Rig(folder / str(users)) as rig:
            rig.keep_little()
            figures[f"{users:,} users"] = _by_tenth(rig, Load(users=users))
            held = sum(file.stat().st_blocks for file in Path(rig.kafka.folder).rglob("*.log")) * 512
            print(f"  Kafka held {held / MIB:,.0f} MiB at the end", flush=True)
    return figures


def _by_tenth(rig: Rig, load: Load) -> Figures:
    release, by_tenth, published, waited_s = rig.release(), list[float](), 0, 0.0
    began = time.monotonic()
    with rig.worker(release) as worker:
        for tenth in range(1, 11):
            while published < DRAINED * tenth // 10:
                rig.fill(load.draw(PIECE))
                published += PIECE
                waits = time.monotonic()
                rig.until_committed(release, published - PIECE)
                waited_s += time.monotonic() - waits
            rig.until_committed(release, published)  # what is in hand is not what stays
            by_tenth.append(worker.memory_full_info().uss / MIB)
            print(f"  {published:,} listens published, {by_tenth[-1]:.1f} MiB", flush=True)
        took_s = time.monotonic() - began
    print(f"{load.users:,} users, {published:,} listens    private memory by tenth "
          f"{', '.join(f'{mib:.0f}' for mib in by_tenth)} MiB; {published / took_s:,.0f} listens/s, "
          f"the load generator waited for {waited_s / took_s:.0%} of the time", flush=True)  # fmt: skip
    return {"private_mib": by_tenth, "listens": published, "listens_per_s": published / took_s}


def table(folder: Path) -> Figures:
    """Memory of two workers that share an item table, and what a table of a million tracks adds to each.

    The listens are of all tracks of the table, so that nearly all of its pages are read.
    """
    figures: Figures = {}
    for tracks in TABLES:
        with Rig(folder / str(tracks)) as rig, contextlib.ExitStack() as stack:
            release = rig.release(tracks=tracks)
            workers = [stack.enter_context(rig.worker(release)) for _ in range(SHARING)]
            rig.until_joined(release, SHARING)
            rig.fill(Load(tracks=tracks).draw(OF_TABLE))
            rig.until_committed(release, OF_TABLE)
            infos = [worker.memory_full_info() for worker in workers]
        private = statistics.mean(info.uss for info in infos) / MIB
        shared = statistics.mean(info.rss - info.uss for info in infos) / MIB
        figures[f"{tracks} tracks"] = {"private_mib": private, "shared_mib": shared}
        print(f"a table of {tracks:>9,} tracks     {private:8.0f} MiB private, {shared:.0f} MiB shared")
    small, big = figures.values()
    added = {name: big[name] - small[name] for name in small}
    print(f"  the table of a million adds   {added['private_mib']:8.0f} MiB private (mark: under 60), "
          f"{added['shared_mib']:.0f} MiB shared (mark: under 250)")  # fmt: skip
    return figures | {"added": added}


PARTS = {"listens-memory": memory, "listens-table": table}
