"""A log the size of MovieLens-1M: how fast the user tower learns from it, beside RecBole's SASRec in the same run.

python tests/benchmarks/user_tower.py look-alike OUT.parquet    # writes the log
python tests/benchmarks/user_tower.py speed                     # examples/s, five minutes
python tests/benchmarks/user_tower.py best                      # time and memory of a training, half an hour
python tests/benchmarks/user_tower.py border                    # from how many tracks on the softmax is sampled
python tests/benchmarks/user_tower.py scale 10000000            # time and memory by part, for a log of so many listens
python tests/benchmarks/user_tower.py devices                   # examples/s on one core, on all of them, and on a GPU

Figures are for two cores where nothing else is said, and kept in build/bench.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import click
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from environments import ROOT, python_of
from numpy.typing import NDArray
from tracks_path import MIB, TASTEWAVE, Figures

BUILD = ROOT / "build"
CORES, HISTORY = 2, 50
ROUNDS, ROUND_S, WARM_UP_S = 3, 20.0, 10.0
DEVICE_S = 6.0
USERS, TRACKS, EVENTS, GENRES = 6040, 3416, 1_000_000, 18
FIRST_S, DAY_S = 956_703_932, 86_400
"""When MovieLens-1M begins, seconds since 1970."""

Ints = NDArray[np.int64]


def write_look_alike(path: Path, *, seed: int = 0) -> None:
    """Draw a log with the counts and the habits of MovieLens-1M.

    At least 20 events a user, a median of 96, at most 2,302; no track twice for a user; from 14 to 2,393 events a
    track, a median of 105; half of the events in the same second as the one before. Users lean to some genres, and
    come by their tracks in blocks: of a genre and a tier of popularity, neighbours after one another, one event in
    seven out of its place. Of the last track of a user, ten guesses by popularity find 2 %, by the track before 15 %.

    Args:
        path: the Parquet file to write, in the order of time: user_id, track_id (strings), at (int64 ms, UTC).
        seed: of every draw.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(2, GENRES + 2)
    genre = rng.choice(GENRES, TRACKS, p=share / share.sum())
    rank = rng.permutation(TRACKS)
    centres = rng.normal(scale=1 / 4, size=(GENRES, 16))
    tastes = rng.normal(size=(USERS, 16))
    kinds = centres[genre] + rng.normal(scale=1 / 6, size=(TRACKS, 16))
    lengths = _lengths(rng)

    # Drawn without putting back, by weight: the first of exponential clocks, each as fast as its weight.
    slowness = np.exp(-(tastes @ kinds.T)) * (rank + 300.0) ** 2.4
    drawn = np.argsort(rng.standard_exponential((USERS, TRACKS)) * slowness, axis=1)
    user = np.repeat(np.arange(USERS), lengths)
    track = drawn[user, np.arange(EVENTS) - np.repeat(np.cumsum(lengths) - lengths, lengths)]

    tier = np.digitize(rank, [250, 900])
    blocks = rng.gumbel(size=(USERS, 3, GENRES)) - (tastes @ centres.T)[:, None, :] + 1.5 * np.arange(3)[:, None]
    block = blocks[user, tier[track], genre[track]]
    block = np.where(rng.random(EVENTS) < 0.15, rng.uniform(-2, 5, EVENTS), block)
    place = rng.random(TRACKS)[track] + rng.normal(scale=0.01, size=EVENTS)
    track = track[np.lexsort((place, block, user))]

    at = _times_ms(rng, lengths)
    order = np.argsort(at, kind="stable")
    pq.write_table(
        pa.table(
            {
                "user_id": _names("user", USERS, user[order]),
                "track_id": _names("track", TRACKS, track[order]),
                "at": at[order],
            }
        ),
        path,
    )


def _lengths(rng: np.random.Generator) -> Ints:
    """Events of each user: 20 and a long tail, EVENTS in all."""
    over = np.minimum(rng.lognormal(np.log(76), 1.14, USERS), 2300)
    lengths = 20 + (over * (EVENTS - 20 * USERS) / over.sum()).astype(np.int64)
    lengths[: EVENTS - lengths.sum()] += 1
    return lengths


def _times_ms(rng: np.random.Generator, lengths: Ints) -> Ints:
    """Of each user's events, oldest first: pages of some events in one second, and sittings days apart."""
    turns_page, returns = rng.random(EVENTS) < 0.45, rng.random(EVENTS) < 1 / 120
    waited_s = np.where(turns_page, 1 + rng.lognormal(np.log(12), 1, EVENTS), 0)
    waited_s += np.where(returns, DAY_S * rng.lognormal(np.log(4), 1.5, EVENTS), 0)
    elapsed_s = np.cumsum(waited_s)
    joined_s = 1000 * DAY_S * rng.beta(1.2, 6, USERS)
    start_s = FIRST_S + joined_s - elapsed_s[np.cumsum(lengths) - lengths]
    return (np.repeat(start_s, lengths) + elapsed_s).astype(np.int64) * 1000


def _names(kind: str, count: int, numbers: Ints) -> pa.Array:
    return pa.DictionaryArray.from_arrays(numbers.astype(np.int32), [f"{kind}-{n}" for n in range(count)]).cast(
        "string"
    )


def write_inter(log: Path, folder: Path) -> None:
    """The log in RecBole's atomic files; its `timestamp`, which it takes to float32, is a listen's place."""
    (folder / "log").mkdir()
    events = pl.read_parquet(log).sort("user_id", "at", "track_id")
    events.select(
        pl.col("user_id").alias("user_id:token"),
        pl.col("track_id").alias("item_id:token"),
        pl.int_range(pl.len()).over("user_id").alias("timestamp:float"),
    ).write_csv(folder / "log/log.inter", separator="\t")


class RecBole:
    """RecBole's SASRec in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read("ready")

    def train(self, seconds: float) -> tuple[int, float]:
        """Examples and seconds of so long a stretch."""
        if self._process.stdin is None:
            raise click.ClickException("RecBole's process has no input")
        print(seconds, file=self._process.stdin, flush=True)
        answer = json.loads(self._read("{"))
        return answer["examples"], answer["seconds"]

    def _read(self, start: str) -> str:
        for line in self._process.stdout or ():
            if line.startswith(start):
                return line
        raise click.ClickException("RecBole ended; it says why above")


@contextmanager
def recbole(log: Path, folder: Path) -> Iterator[RecBole]:
    """RecBole on a log."""
    write_inter(log, folder)
    python = [python_of("recbole"), "-W", "ignore::FutureWarning"]
    command = [*python, Path(__file__).with_name("recbole_sasrec.py"), folder, str(HISTORY)]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield RecBole(process)
        finally:
            process.kill()


class Ours:
    """The user tower's training, step by step."""

    def __init__(self, log: Path, folder: Path, pooling: Literal["mean", "attention"], device: str = "cpu") -> None:
        import torch

        from offline.user_tower.candidate import Candidate
        from offline.user_tower.data import prepare
        from offline.user_tower.parallel import Team
        from offline.user_tower.settings import TowerTraining

        folder.mkdir()
        settings = TowerTraining(
            log=str(log), out=str(folder / "tower"), pooling=pooling, split="leave-last", history=HISTORY,
            validation_examples=100,
        )  # fmt: skip
        data = prepare(settings, scratch=folder, team=Team(device=torch.device(device)))
        self._candidate = Candidate(data, 0.2, folder / "checkpoint.safetensors")
        self._steps = data.steps()

    def train(self, seconds: float) -> tuple[int, float]:
        """Examples and seconds of so long a stretch; the validation at its end is not in them."""
        until = time.monotonic() + seconds

        def batches() -> Iterator[Any]:
            while time.monotonic() < until:
                yield next(self._steps)

        self._candidate.train(batches(), advance=lambda: None)
        point = self._candidate.course[-1]
        return int(point["examples"]), point["seconds"]


def speed(folder: Path) -> Figures:
    """Examples/s of our training and of RecBole's, in turn. An example is a next track foreseen, with a loss."""
    import torch

    torch.set_num_threads(CORES)
    log = folder / "log.parquet"
    write_look_alike(log)
    rates: dict[str, list[float]] = {"mean": [], "attention": [], "RecBole": []}
    with recbole(log, folder) as peer:
        trained = {
            "mean": Ours(log, folder / "mean", "mean"),
            "attention": Ours(log, folder / "attention", "attention"),
            "RecBole": peer,
        }
        for runner in trained.values():
            runner.train(WARM_UP_S)
        for _ in range(ROUNDS):
            for name, runner in trained.items():
                examples, took = runner.train(ROUND_S)
                rates[name].append(examples / took)
    theirs = statistics.median(rates["RecBole"])
    for name in ("mean", "attention"):
        ours = statistics.median(rates[name])
        print(f"user tower, {name:<20}{ours:8.0f} examples/s   RecBole SASRec {theirs:.0f}   "
              f"ratio {ours / theirs:.1f}x (mark: 2)")  # fmt: skip
    print(f"  history {HISTORY}, full softmax of {TRACKS} tracks; RecBole with its own defaults, of width 64, makes a "
          "sequence of each prefix, we learn at many places of a window")  # fmt: skip
    return {"examples_per_s": rates}


def devices(folder: Path) -> Figures:
    """Examples/s of our training in one thread, in as many as there are cores, and on a GPU where there is one."""
    import torch

    log = folder / "log.parquet"
    write_look_alike(log)
    cores = len(os.sched_getaffinity(0))
    runs = [("cpu", 1), ("cpu", cores), *([("cuda", cores)] if torch.cuda.is_available() else [])]
    figures: Figures = {}
    for pooling in ("mean", "attention"):
        for device, threads in runs:
            torch.set_num_threads(threads)
            name = f"{pooling}, {device}" + (f", {threads} threads" if device == "cpu" else "")
            trained = Ours(log, folder / name, pooling, device)
            trained.train(DEVICE_S)
            examples, took = trained.train(DEVICE_S)
            figures[name] = examples / took
            print(f"{name:<30}{figures[name]:12,.0f} examples/s", flush=True)
    return figures


def best(folder: Path) -> Figures:
    """Minutes of a training, its settings chosen and all, until its best validation and in all; its peak memory."""
    from models.user_tower import TOWER_MANIFEST

    log = folder / "log.parquet"
    write_look_alike(log)
    figures: Figures = {}
    for pooling in ("mean", "attention"):
        out = folder / pooling
        command = [TASTEWAVE.with_name("tastewave-offline"), "train-user-tower", log, out, "split=leave-last",
                   f"pooling={pooling}"]  # fmt: skip
        began, seen_s = time.monotonic(), {}
        process = subprocess.Popen(command)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            for validation in validations(folder / f"{pooling}.partial"):
                seen_s.setdefault(validation, time.monotonic() - began)
            time.sleep(1)
        wall_s, peak_mib = time.monotonic() - began, ended[2].ru_maxrss * 1024 / MIB
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            raise click.ClickException(f"the training ended with status {process.returncode}; it says why above")
        training = json.loads((out / TOWER_MANIFEST).read_text())["training"]
        best_s = seen_s.get((training["dropout"], training["best_step"]), wall_s)
        print(f"training of a tower, {pooling:<11}{best_s / 60:8.1f} min to the best validation (NDCG@10 "
              f"{training['valid_ndcg_at_10']:.4f}), {wall_s / 60:.1f} min in all (mark: 20)")  # fmt: skip
        print(f"  peak memory                   {peak_mib:8.0f} MiB  (mark: 4096)")
        figures[pooling] = {"best_s": best_s, "wall_s": wall_s, "peak_mib": peak_mib, "training": training}
    return figures


def border(_: Path) -> Figures:
    """CPU seconds of a step with the full and with the sampled softmax, by the number of tracks, in one thread."""
    import torch

    torch.set_num_threads(1)
    figures: Figures = {}
    for tracks in (10_000, 20_000, 30_000, 50_000, 100_000):
        took = {name: _step_s(tracks, full_softmax_tracks=most) for name, most in (("full", tracks), ("sampled", 1))}
        print(
            f"{tracks:>8,} tracks: {took['full']:.3f} s a step with the full softmax, {took['sampled']:.3f} s sampled"
        )
        figures[str(tracks)] = took
    return figures


def _step_s(tracks: int, **settings: Any) -> float:
    """CPU seconds of a step on random windows of 32 people with 199 listens each."""
    import torch

    from offline.user_tower.candidate import Candidate
    from offline.user_tower.parallel import Team
    from offline.user_tower.settings import TowerTraining
    from offline.user_tower.windows import Windows

    rng = np.random.default_rng(0)
    team = Team(device=torch.device("cpu"))
    data: Any = SimpleNamespace(
        settings=TowerTraining(log="", out="", **settings), start=torch.randn(tracks, 40), learned=np.arange(tracks),
        team=team, device=team.device, key="",
    )  # fmt: skip
    candidate = Candidate(data, 0.2, Path("none"))
    trains = np.arange(199) >= 49
    ages_s = np.sort(rng.random((32, 199)) * 1e6)[:, ::-1].copy()
    took = []
    for _ in range(6):
        batch = Windows(
            rows=rng.integers(0, tracks, (32, 199)), signals=np.ones((32, 199), np.int64), ages_s=ages_s,
            trains=np.tile(trains, (32, 1)), targets=rng.integers(0, tracks, 32 * trains.sum()),
        )  # fmt: skip
        began = time.process_time()
        candidate._step(batch, torch.Generator().manual_seed(0))
        took.append(time.process_time() - began)
    return min(took[1:])


def scale(folder: Path, *, listens: int) -> Figures:
    """Seconds of each part of a training in one thread, and its peak memory; users a tenth, tracks a hundredth."""
    import torch

    from offline.user_tower.candidate import Candidate
    from offline.user_tower.data import prepare
    from offline.user_tower.order import training_order
    from offline.user_tower.parallel import Team
    from offline.user_tower.settings import TowerTraining

    torch.set_num_threads(1)
    (log := folder / "log").mkdir()
    settings = TowerTraining(log=str(log), out="", validate_every=20)
    seconds: Figures = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        yield
        seconds[name] = time.process_time() - cpu_s, time.monotonic() - wall_s
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
        print(
            f"{name:<40}{seconds[name][0]:8.1f} s CPU {seconds[name][1]:8.1f} s, peak {peak_mib:,.0f} MiB", flush=True
        )

    with part("writing a log"):
        _write_large(log, listens=listens)
    with part("reading the log, where items start"):
        data = prepare(settings, scratch=folder, team=Team(device=torch.device("cpu")))
    with part("the order of an epoch"):
        training_order(data.log, data.split, data.row_of, rng=np.random.default_rng(0))
    peak_mib = 0.0
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        of_device = replace(data, team=Team(device=torch.device(device)))
        candidate = Candidate(of_device, 0.2, folder / "checkpoint")
        steps = data.steps()
        with part(f"{device}: the first step's windows"):
            next(steps)
        with part(f"{device}: 20 steps and a validation"):
            candidate.train(islice(steps, 20), advance=lambda: None)
        with part(f"{device}: 20 steps more"):
            losses = [candidate._step(batch, torch.Generator().manual_seed(0)) for batch in islice(steps, 20)]
            losses[-1].item()  # which waits for a GPU
        with part(f"{device}: a validation"):
            candidate._average()
            candidate._validate()
        steps.close()
        peak_mib = peak_mib or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    print(f"{data.budget.epoch_steps:,} steps an epoch; peak memory without a GPU {peak_mib:,.0f} MiB")
    return seconds | {"epoch_steps": data.budget.epoch_steps, "peak_mib": peak_mib}


def _write_large(folder: Path, *, listens: int) -> None:
    """A log with a few favourites and a long tail of tracks, listened to within a year; 10 listens a user."""
    users, tracks = listens // 10, listens // 100
    schema = pa.schema([("user_id", pa.string()), ("track_id", pa.string()), ("at", pa.int64())])

    def write(start: int) -> None:
        rng, count = np.random.default_rng(start), min(1_000_000, listens - start)
        user = (rng.random(count) ** 2 * users).astype(np.int64)
        track = (rng.random(count) ** 3 * tracks).astype(np.int64)
        frame = pl.DataFrame({"user": user, "track": track}).select(
            user_id="u" + pl.col("user").cast(str), track_id="t" + pl.col("track").cast(str)
        )
        at = FIRST_S * 1000 + rng.integers(0, 365 * DAY_S, count) * 1000
        pq.write_table(frame.with_columns(at=at).to_arrow().cast(schema), folder / f"{start:012}.parquet")

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(0, listens, 1_000_000)))


def validations(partial: Path) -> list[tuple[float, int]]:
    """Dropout and step of each that the checkpoints of a training tell of."""
    from safetensors import safe_open

    found = []
    for path in partial.glob("dropout-*.safetensors"):
        with suppress(OSError), safe_open(path, framework="numpy") as file:  # gone once the training is done
            course = json.loads(file.metadata()["course"])
            found += [(float(path.stem.removeprefix("dropout-")), point["step"]) for point in course]
    return found


def keep(part: Callable[[Path], Figures], *, cores: int = CORES) -> None:
    """Measure a part on some cores, and keep its figures in build/bench.json."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with tempfile.TemporaryDirectory() as folder:
        figures = part(Path(folder))
    BUILD.mkdir(exist_ok=True)
    kept = BUILD / "bench.json"
    whole = json.loads(kept.read_text()) if kept.exists() else {}
    kept.write_text(json.dumps(whole | {f"tower_{part.__name__}": figures}, indent=2))


@click.group(help=__doc__)
def main() -> None:
    """Choose what to do."""


main.command("speed", help=speed.__doc__)(lambda: keep(speed))
main.command("best", help=best.__doc__)(lambda: keep(best))
main.command("border", help=border.__doc__)(lambda: keep(border))
main.command("devices", help=devices.__doc__)(lambda: keep(devices, cores=os.cpu_count() or 1))


@main.command(name="scale", help=scale.__doc__)
@click.argument("listens", type=click.IntRange(10_000))
def scale_of(listens: int) -> None:
    """Measure a log of so many listens."""

    def part(folder: Path) -> Figures:
        return scale(folder, listens=listens)

    part.__name__ = f"scale_{listens}"
    keep(part)


@main.command(name="look-alike", help="Write the log.")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def look_alike(out: Path) -> None:
    """Write the log."""
    write_look_alike(out)


if __name__ == "__main__":
    main()
