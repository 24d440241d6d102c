"""`make bench`: a line per figure, and build/bench.json. Ratios come from one run; no figure here is a test.

python tests/benchmarks/bench.py            # everything but listens-memory, listens-latency and encoder-losses
python tests/benchmarks/bench.py hear       # one part: hear, tag, robustness, start, path, guards, redelivery, queue,
                                            # listens, listens-latency, listens-table, users, encoder,
                                            # encoder-training, encoder-losses, reader, rescore, serve, index, feed or
                                            # listens-memory (20 million)
python tests/benchmarks/bench.py robustness --audio music  # of a folder of music, not of synthesised music
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

import click
import encoder
import encoder_losses
import listens_memory
import listens_path
import reader_path
import rescoring
import serve
import tracks_path
import users_store
import vector_index
from robustness import robustness
from tracks_path import TASTEWAVE, Figures, write_mp3

BUILD = Path(__file__).parents[2] / "build"


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

    from models.audio.windows import WindowPlan  # noqa: F401 - imported before the clock starts
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


PARTS = {"hear": hear, "tag": tag, "robustness": robustness}
MODULES = (
    tracks_path, listens_path, listens_memory, users_store, encoder, encoder_losses, reader_path, rescoring, serve,
    vector_index,
)  # fmt: skip
for module in MODULES:
    PARTS |= module.PARTS
APART = {"listens-memory", "listens-latency", "encoder-losses"}


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--audio", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For robustness alone.")
def main(parts: tuple[str, ...], audio: Path | None) -> None:
    """Run the parts, each in a process of its own."""
    if audio and parts != ("robustness",):
        raise click.UsageError("--audio is for robustness alone; name no other part")
    if len(parts) == 1:
        with tempfile.TemporaryDirectory() as folder:
            figures = PARTS[parts[0]](Path(folder), *([audio] if audio else []))
        BUILD.mkdir(exist_ok=True)
        kept = BUILD / "bench.json"
        whole = json.loads(kept.read_text()) if kept.exists() else {}
        kept.write_text(json.dumps(whole | {parts[0]: figures}, indent=2))
        return
    for part in parts or [part for part in PARTS if part not in APART]:
        subprocess.run([sys.executable, __file__, part], check=True)


if __name__ == "__main__":
    main()
