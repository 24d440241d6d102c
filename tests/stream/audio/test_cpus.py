"""The CPUs of a container: fewer than those of its machine where it has a quota."""

import os
from pathlib import Path

import pytest

from stream.audio.cpus import usable_cpus


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def cpus(folder: Path, groups: str, files: dict[str, str]) -> int:
    (folder / "cgroup").write_text(groups)
    for name, text in files.items():
        file = folder / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return usable_cpus(groups=folder / "cgroup", mounted=folder / "mounted")


VERSION_1 = "12:pids:/a\n5:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # version 2
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000"}, 8),
        ("0::/\n", {}, 8),
        ("0::/pod/app\n", {"pod/app/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}, 3),
        ("0::/pod/app\n", {"pod/app/cpu.max": "400000 100000", "pod/cpu.max": "600000 100000"}, 4),
        ("0::/docker/abc\n", {"cpu.max": "200000 100000"}, 2),  # the path is that of the machine
        # version 1
        (VERSION_1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "300000",
                     "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"}, 3),
        (VERSION_1, {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1",
                     "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"}, 8),
        (VERSION_1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2),
        # both
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("1:name=systemd:/\n0::/x\n", {"unified/x/cpu.max": "200000 100000"}, 2),
    ],
)  # fmt: skip
def test_the_least_quota_of_a_group_and_those_around_it_counts(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert cpus(tmp_path, groups, files) == expected


def test_a_machine_without_control_groups_has_the_cpus_that_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cpus(groups=tmp_path / "none", mounted=tmp_path / "none") == 8


def test_this_machine_is_read() -> None:
    assert 1 <= usable_cpus() <= 8
