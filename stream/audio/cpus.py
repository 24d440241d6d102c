"""How many CPUs this process may use: those that it may run on, or fewer where its container has a quota."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus(*, groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole CPUs, 1 at least. Of a quota of 2.5 CPUs, the half is left to the main process.

    Args:
        groups: lists the control groups of this process (cgroups(7)).
        mounted: where the file systems of the control groups are mounted.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas(groups, mounted)])))


def _quotas(groups: Path, mounted: Path) -> Iterator[float]:
    """Each quota, in CPUs, that holds for this process: those of its group, and of the groups around that."""
    for folder, files in _folders(groups, mounted):
        words = " ".join(file.read_text() for name in files if (file := folder / name).is_file()).split()
        if len(words) == 2 and words[0] not in ("max", "-1"):
            quota_us, period_us = map(int, words)
            yield quota_us / period_us


def _folders(groups: Path, mounted: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each folder that may hold a quota, with the names of the files that hold its quota and period."""
    lines = groups.read_text().splitlines() if groups.is_file() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:  # version 2, which a hybrid mounts at "unified"
            places, files = (mounted, mounted / "unified"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            places, files = (mounted / controllers, mounted / "cpu"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        # A container may see the path that its group has outside of it, and yet have its own group at the root.
        group = PurePosixPath(path.lstrip("/"))
        for place in places:
            yield from ((place / around, files) for around in (group, *group.parents))
