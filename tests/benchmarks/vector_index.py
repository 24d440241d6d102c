"""Similar tracks among a million: recall, time and memory of stream.serve.index, on one core, against all scores."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Figures = dict[str, object]
VECTORS, DIM, CLUSTERS, QUERIES, K = 1_000_000, 40, 2_000, 500, 10
JUDGED = 200  # queries whose true neighbours are computed
Vectors = NDArray[np.float32]


def clustered(count: int, chance: np.random.Generator) -> Vectors:
    """Vectors of unit norm around 2,000 centres of different weight; two of a centre have a cosine of some .5."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    around = chance.choice(CLUSTERS, count, p=weights / weights.sum())
    vectors = centres[around] + chance.standard_normal((count, DIM), np.float32) * np.float32(1 / DIM**0.5)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def resident_mb() -> float:
    """Resident memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def timed(search: Callable[[Vectors], object], queries: Vectors) -> dict[str, float]:
    """Milliseconds of a call, by the clock and of CPU: median and 99th percentile."""
    wall, cpu = [], []
    for query in queries:
        began, spent = time.perf_counter(), time.thread_time()
        search(query)
        cpu.append((time.thread_time() - spent) * 1000)
        wall.append((time.perf_counter() - began) * 1000)
    return {
        "p50_ms": float(np.percentile(wall, 50)),
        "p99_ms": float(np.percentile(wall, 99)),
        "p50_cpu_ms": float(np.percentile(cpu, 50)),
        "p99_cpu_ms": float(np.percentile(cpu, 99)),
    }


def index(_: Path) -> Figures:
    """A million clustered vectors; the truth is each inner product, computed by numpy."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    from stream.serve.index import VectorIndex

    chance = np.random.default_rng(1)
    vectors, queries = clustered(VECTORS, chance), clustered(QUERIES, chance)
    labels = np.where(chance.random(VECTORS) < 0.1, 7, chance.integers(100, 200, VECTORS)).astype(np.int32)
    before_mb = resident_mb()
    held = VectorIndex(DIM)
    began, spent = time.perf_counter(), time.process_time()
    for start in range(0, VECTORS, 1000):
        rows = np.arange(start, start + 1000)
        held.put(rows, vectors[rows], labels=labels[rows])
    filled_s = time.process_time() - spent
    held.rebuild()
    built = {"build_s": time.perf_counter() - began, "build_cpu_s": time.process_time() - spent, "put_cpu_s": filled_s}
    figures: Figures = {"vectors": VECTORS, **built, "stated_mb": held.nbytes / 1e6}
    figures["resident_mb"] = resident_mb() - before_mb
    print(f"{VECTORS:,} vectors of {DIM}          built in {built['build_s']:.1f} s "
          f"({built['build_cpu_s']:.1f} of CPU, {filled_s:.1f} to put)   {figures['stated_mb']:.0f} MB "
          f"({figures['resident_mb']:.0f} resident)")  # fmt: skip
    one_by_one = timed(lambda query: vectors @ query, queries[:20])["p50_cpu_ms"]
    print(f"  every score by numpy      CPU {one_by_one:.1f} ms")
    figures["every_score_cpu_ms"] = one_by_one
    for name, label in (("all", None), ("a label of 10 %", 7), ("a label of 1 %", 107)):
        of = np.arange(VECTORS) if label is None else np.flatnonzero(labels == label)
        among = vectors[of]
        hits = 0
        for query in queries[:JUDGED]:
            scores = among @ query
            best = of[np.argpartition(-scores, K)[:K]]
            hits += len(np.intersect1d(best, held.search(query, K, label=label).rows))
        took = timed(lambda query, label=label: held.search(query, K, label=label), queries)
        recall = hits / (JUDGED * K)
        figures[name] = {"recall_at_10": recall, **took}
        print(f"  {name:<16} recall@10 {recall:.3f}   p50 {took['p50_ms']:.2f} p99 {took['p99_ms']:.2f} ms   "
              f"CPU p50 {took['p50_cpu_ms']:.2f} p99 {took['p99_cpu_ms']:.2f} ms")  # fmt: skip
    return figures


PARTS = {"index": index}
