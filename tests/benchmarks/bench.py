"""`make bench`: a line per figure, and build/bench.json. Ratios come from one run; no figure here is a test.

python tests/benchmarks/bench.py            # everything
python tests/benchmarks/bench.py hear       # one part: hear, tag, worker
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psutil

BUILD = Path(__file__).parents[2] / "build"
TASTEWAVE = Path(sys.executable).with_name("tastewave")
MIB = 2**20
Figures = dict[str, Any]


def write_mp3(path: Path, *, seconds: float = 30.0) -> Path:
    """A 44.1 kHz stereo mp3 of chords over a beat."""
    import numpy as np
    import soundfile

    rng, rate = np.random.default_rng(0), 44_100
    t = np.arange(int(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * t) for f in (110, 164.81, 220, 277.18, 329.63))
    beat = np.exp(-30 * (t % 0.5)) * rng.standard_normal(t.size)
    left, right = 0.1 * tones + 0.3 * beat, 0.1 * np.roll(tones, 100) + 0.3 * beat
    soundfile.write(path, np.stack([left, right], axis=1), rate, format="MP3")
    return path


def median_ms(function: Callable[[], object], *, runs: int) -> float:
    """Median wall time of a call, ms."""
    took = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        took.append((time.perf_counter() - started) * 1000)
    return statistics.median(took)


def hear(folder: Path) -> Figures:
    """Milliseconds for a 30-s mp3 on one core, against the unmodified musicnn.extractor, run by run in turn."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import warnings

    warnings.simplefilter("ignore")
    from musicnn.extractor import extractor

    from models.audio import WindowPlan  # noqa: F401 - imported before the clock starts
    from models.release import load_release
    from models.tagger import Tagger

    mp3 = write_mp3(folder / "track.mp3")
    tagger = Tagger(load_release(), max_duration_s=3600.0)
    ours, theirs, stages = [], [], []
    with Path(os.devnull).open("w") as quiet:
        for run in range(8):
            started = time.perf_counter()
            tagging = tagger.tag(mp3)
            middle = time.perf_counter()
            stdout, sys.stdout = sys.stdout, quiet
            extractor(str(mp3), model="MSD_musicnn", extract_features=True)
            sys.stdout = stdout
            ended = time.perf_counter()
            if run:  # the first of each is a warm-up
                ours.append((middle - started) * 1000)
                theirs.append((ended - middle) * 1000)
                stages.append(tagging.timings_ms)
    mine, peer = statistics.median(ours), statistics.median(theirs)
    split = {name: statistics.median(stage[name] for stage in stages) for name in stages[0]}
    print(
        f"30-s 44.1 kHz mp3, one core     {mine:8.0f} ms   musicnn.extractor {peer:.0f} ms   ratio {peer / mine:.1f}x"
    )
    for name, took in split.items():
        print(f"  {name:<29} {took:8.1f} ms")
    return {"ms_per_track": mine, "musicnn_extractor_ms": peer, "ratio": peer / mine, "stages_ms": split}


def tag(folder: Path) -> Figures:
    """`tastewave tag` of one 30-s file, from process start, s."""
    mp3 = write_mp3(folder / "track.mp3")
    command = [TASTEWAVE, "tag", mp3]
    took = median_ms(lambda: subprocess.run(command, check=True, capture_output=True), runs=7) / 1000
    helped = median_ms(lambda: subprocess.run([TASTEWAVE, "--help"], check=True, capture_output=True), runs=7) / 1000
    print(f"tastewave tag, process start    {took:8.2f} s    (mark: under 1)")
    print(f"tastewave --help                {helped:8.2f} s    (mark: under 0.5)")
    return {"tag_s": took, "help_s": helped}


def worker(folder: Path) -> Figures:
    """Start-up and memory of a worker, and events/s of the whole path, on real servers."""
    from deploy.local import Kafka, Redis

    tracks = 60
    mp3 = write_mp3(folder / "track.mp3")
    with Kafka() as kafka, Redis() as redis:
        environment = os.environ | {
            "TASTEWAVE_KAFKA_BROKERS": kafka.brokers,
            "TASTEWAVE_REDIS_URL": redis.url,
            "TASTEWAVE_FILE_ROOTS": str(folder),
            "TASTEWAVE_HEALTH_PORT": "0",
            "TASTEWAVE_LOG_FORMAT": "json",
        }
        subprocess.run([TASTEWAVE, "topics", "create"], env=environment, check=True, capture_output=True)
        started = time.time()
        with (folder / "worker.log").open("wb") as log:
            process = subprocess.Popen([TASTEWAVE, "worker", "tracks"], env=environment, stderr=log)
        try:
            at = {name: _logged(folder / "worker.log", name) - started for name in ("worker.loaded", "worker.ready")}
            links = [folder / f"{number}.mp3" for number in range(tracks)]
            for number, link in enumerate(links):  # other bytes, so that each is another track
                link.write_bytes(mp3.read_bytes() + number.to_bytes(4, "big"))
            began = time.perf_counter()
            subprocess.run([TASTEWAVE, "upload", *links, "--wait"], env=environment, check=True, capture_output=True)
            rate = tracks / (time.perf_counter() - began)
            main = psutil.Process(process.pid)
            pool = [child for child in main.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
            memory = main.memory_info().rss / MIB, max(child.memory_info().rss for child in pool) / MIB
        finally:
            process.terminate()
            process.wait(60)
    print(f"worker loaded, process start    {at['worker.loaded']:8.2f} s    (mark: under 2)")
    print(f"  then in its consumer group    {at['worker.ready'] - at['worker.loaded']:8.2f} s")
    print(f"main process                    {memory[0]:8.0f} MiB  (mark: under 150)")
    print(f"each of {len(pool)} pool processes        {memory[1]:8.0f} MiB  (mark: under 250)")
    print(f"whole path, upload --wait       {rate:8.1f} tracks/s")
    return {
        "loaded_s": at["worker.loaded"],
        "ready_s": at["worker.ready"],
        "main_mib": memory[0],
        "pool_mib": memory[1],
        "tracks_per_s": rate,
    }


def _logged(log: Path, event: str) -> float:
    from datetime import datetime

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and json.loads(line)["event"] == event:
                return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        time.sleep(0.02)
    raise click.ClickException(f"the worker did not log {event}:\n{log.read_text()}")


PARTS = {"hear": hear, "tag": tag, "worker": worker}


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(parts: tuple[str, ...]) -> None:
    """Run the parts, each in a process of its own."""
    if len(parts) == 1:
        with tempfile.TemporaryDirectory() as folder:
            figures = PARTS[parts[0]](Path(folder))
        BUILD.mkdir(exist_ok=True)
        kept = BUILD / "bench.json"
        whole = json.loads(kept.read_text()) if kept.exists() else {}
        kept.write_text(json.dumps(whole | {parts[0]: figures}, indent=2))
        return
    for part in parts or PARTS:
        subprocess.run([sys.executable, __file__, part], check=True)


if __name__ == "__main__":
    main()
