"""What `tastewave-offline features` takes for a track, against the same release's Tagger in a loop, in the same run.

python tests/benchmarks/features.py [FOLDER]           # of a folder of audio; of 16 synthesised tracks without one
python tests/benchmarks/features.py [FOLDER] --ray     # and two Ray nodes of one core each, on this machine

Each way hears the same files. On one core, the Tagger and the hearing of features take turns. Wall time is what the
machine takes with whatever else it does; CPU time is that of all processes of a way, but for those of Ray.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

from models.release import load_release
from models.tagger import Tagger
from offline.features import extract
from offline.features.catalogue import read_catalogue
from offline.features.hear import Wanted
from offline.features.settings import Features
from offline.synth.music import write_tracks


def cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(
    name: str, hear: Callable[[Sequence[Path]], object], files: Sequence[Path], *, first: int
) -> tuple[float, float]:
    """Wall and CPU time of each further track, s: what all take, less what the first ones take with the way's start."""
    took = []
    for some in (files[:first], files):
        wall, used = time.perf_counter(), cpu_s()
        hear(some)
        took.append((time.perf_counter() - wall, cpu_s() - used))
    (start_wall, start_used), (wall, used) = took
    wall, used = (wall - start_wall) / (len(files) - first), (used - start_used) / (len(files) - first)
    print(
        f"{name:<24} {1000 * wall:6.0f} ms wall {1000 * used:6.0f} ms CPU a track; "
        f"with the start, the first {first} take {start_wall:.1f} s, {start_used:.1f} s CPU",
        flush=True,
    )
    return wall, used


def one_core(tagger: Tagger, files: Sequence[Path]) -> None:
    """CPU time of a track in one process, the two ways in turn: the median, without start and without sealing."""
    hearing, _ = extract.hearing_of(Features(catalogue="", out=""))
    took: dict[str, list[float]] = {"Tagger": [], "features": []}
    ways: dict[str, Callable[[Path], object]] = {
        "Tagger": tagger.tag,
        "features": lambda file: hearing([Wanted(str(file), None)]),
    }
    for file in (files[0], *files):
        for name, hear in ways.items():
            started = time.process_time()
            hear(file)
            took[name].append(time.process_time() - started)
    for name, times in took.items():
        print(f"one core, {name:<14} {1000 * statistics.median(times[1:]):6.0f} ms CPU a track", flush=True)
    ratios = [ours / theirs for ours, theirs in zip(took["features"][1:], took["Tagger"][1:], strict=True)]
    low, middle, high = statistics.quantiles(ratios)
    print(f"one core, features against the Tagger {middle:.2f} (middle half of the tracks {low:.2f} to {high:.2f})")


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster on loopback."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield str(cluster.address)
    finally:
        cluster.shutdown()


@click.command()
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--ray", is_flag=True)
@click.option("--tracks", default=16, show_default=True)
@click.option("--per-shard", default=2, show_default=True)
def main(folder: Path | None, ray: bool, tracks: int, per_shard: int) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as scratch:
        music = Path(scratch, "music")
        if folder is None:
            list(write_tracks(music, tracks=tracks, duration_s=95.0, seed=0, audio_format="mp3"))
        else:
            music.mkdir()
            for uri in read_catalogue(Features(catalogue=str(folder), out=""))["uri"][:tracks]:
                shutil.copy(uri, music)
        files = sorted(music.iterdir())

        def features(**settings: Any) -> Callable[[Sequence[Path]], object]:
            def hear(some: Sequence[Path]) -> object:
                out = Path(tempfile.mkdtemp(dir=scratch))
                table = out.with_suffix(".csv")
                table.write_text("\n".join(["track_id,uri", *(f"{file.stem},{file}" for file in some)]))
                given = Features(catalogue=str(table), out=str(out), tracks_per_shard=per_shard, **settings)
                return extract.run(given)

            return hear

        tagger = Tagger(load_release())
        one_core(tagger, files)
        first = 2 * per_shard  # so that each of two processes has started
        _, loop = measured("Tagger in a loop", lambda some: [tagger.tag(file) for file in some], files, first=first)
        alone, ours = measured("features, 1 process", features(processes=1), files, first=first)
        two, both = measured("features, 2 processes", features(processes=2), files, first=first)
        print(
            f"CPU of features against the loop {ours / loop:.2f} and {both / loop:.2f}; 2 processes {alone / two:.2f}x"
        )
        if ray:
            with two_nodes() as address:
                on_ray, _ = measured("features, 2 Ray nodes", features(ray=address), files, first=first)
            print(f"2 Ray nodes {alone / on_ray:.2f}x (the CPU time above is that of the driver alone)")


if __name__ == "__main__":
    main()
