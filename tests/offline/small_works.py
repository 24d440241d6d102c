"""Works for tests of offline.spread, and a program that spreads one.

    python -m tests.offline.small_works OUT NOTES WORK SHARDS [RAY]

spreads the work WORK over SHARDS shards "00", "01", ... of two items each.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np  # noqa: F401 - its OpenBLAS has threads
from threadpoolctl import threadpool_info

from models.errors import SettingsError
from offline.progress import progress_bar
from offline.spread import Files, spread


@dataclass(frozen=True)
class Work:
    """Notes in a folder that a shard was begun and ended, with the process and the time, and gives its sum.

    Attributes:
        notes: the folder.
        how: what happens on the way: nothing, or what a method of this class is named.
    """

    notes: Path
    how: str = "plainly"

    def __call__(self, shard: Sequence[int]) -> Files:
        with self.noted(shard):
            getattr(self, self.how)(shard)
        return {"sum": str(sum(shard)).encode(), "pid": str(os.getpid()).encode()}

    @contextmanager
    def noted(self, shard: Sequence[int]) -> Iterator[None]:
        pid = os.getpid()
        begun = len(list(self.notes.glob(f"begun-{shard[0]}-*")))
        (self.notes / f"begun-{shard[0]}-{begun}-{pid}").write_text(str(time.monotonic()))
        yield
        (self.notes / f"ended-{shard[0]}-{begun}-{pid}").write_text(str(time.monotonic()))

    def plainly(self, shard: Sequence[int]) -> None:
        time.sleep(0.05)

    def dies_the_first_time(self, shard: Sequence[int]) -> None:
        if len(list(self.notes.glob(f"begun-{shard[0]}-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def dies_at_two(self, shard: Sequence[int]) -> None:
        if shard[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def dies(self, shard: Sequence[int]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def refuses(self, shard: Sequence[int]) -> None:
        raise SettingsError("the release is another one; put the same one on all machines")

    def stumbles(self, shard: Sequence[int]) -> None:
        raise ZeroDivisionError("a bug of the work")

    def tells_its_threads(self, shard: Sequence[int]) -> None:
        (self.notes / f"threads-{shard[0]}").write_text(str({pool["num_threads"] for pool in threadpool_info()}))

    def waits_after_the_first(self, shard: Sequence[int]) -> None:
        """Until a file `go` is there, but for shard 0."""
        while shard[0] and not (self.notes / "go").exists():
            time.sleep(0.02)


def shards(count: int) -> dict[str, list[int]]:
    return {f"{number:02d}": [number, 10] for number in range(count)}


def main(out: str, notes: str, how: str, count: str, ray: str | None = None) -> None:
    with progress_bar() as bar:
        spread(
            Work(Path(notes), how),
            shards(int(count)),
            out=Path(out),
            progress=bar,
            label="Adding",
            processes=2,
            ray=ray,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
