"""What `tastewave-offline features` takes for a track, against the same release's Tagger in a loop, in the same run.

python tests/benchmarks/features.py [FOLDER]           # of a folder of audio; of 16 synthesised tracks without one
python tests/benchmarks/features.py [FOLDER] --ray     # and two Ray nodes of one core each, on this machine

Each way hears the same files. CPU time is that of all processes that hear; wall time is what the machine takes with
whatever else it does. A way's first seconds are its start: the more tracks, the less they count.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}

from models.release import load_release
from models.tagger import Tagger
from offline.features import extract
from offline.features.catalogue import read_catalogue
from offline.features.settings import Features
from offline.synth.music import write_tracks


def cpu_s() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured(name: str, hear: Callable[[], object], tracks: int, *, cpu: bool = True) -> tuple[float, float]:
    """Wall and CPU time of a way, s a track."""
    wall, used = time.perf_counter(), cpu_s()
    hear()
    wall, used = (time.perf_counter() - wall) / tracks, (cpu_s() - used) / tracks
    shown = f"{1000 * used:8.0f} ms CPU" if cpu else " " * 15
    print(f"{name:<28} {1000 * wall:8.0f} ms wall {shown} a track", flush=True)
    return wall, used


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster on loopback."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster.address
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

        def features(**settings: object) -> Callable[[], object]:
            out = tempfile.mkdtemp(dir=scratch)
            return lambda: extract.run(
                Features(catalogue=str(music), out=out, tracks_per_shard=per_shard, **settings)  # type: ignore[arg-type]
            )

        tagger = Tagger(load_release())
        tagger.tag(files[0])
        _, loop = measured("Tagger in a loop", lambda: [tagger.tag(file) for file in files], len(files))
        alone, ours = measured("features, 1 process", features(processes=1), len(files))
        two, both = measured("features, 2 processes", features(processes=2), len(files))
        print(
            f"CPU of features against the loop {ours / loop:.2f} and {both / loop:.2f}; 2 processes {alone / two:.2f}x"
        )
        if ray:
            with two_nodes() as address:
                on_ray, _ = measured("features, 2 Ray nodes", features(ray=address), len(files), cpu=False)
            print(f"2 Ray nodes {alone / on_ray:.2f}x")


if __name__ == "__main__":
    main()
