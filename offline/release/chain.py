"""Jobs that run one after the other, each filling a folder; what an earlier run has ended is used again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from rich.console import Console

from offline.files import new_file, write_json
from offline.jobs import Outcome


class Settings(Protocol):
    """What can be set of a job."""

    @property
    def out(self) -> str:
        """The file or folder that it makes."""
        ...


Settings_ = TypeVar("Settings_", bound=Settings)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a step that ended.

    Attributes:
        key: stands for its settings, and for the steps before it and theirs.
        seconds: that it took.
        lines: that its job printed.
    """

    key: str
    seconds: float
    lines: tuple[str, ...]


class Chain:
    """Steps in a folder, where `NAME.json` tells of each one that it has ended.

        chain = Chain(Path("build/demonstration"))
        chain.step("tower", run, TowerTraining(log="listens", out="build/demonstration/tower"))
        chain.done["tower"].seconds

    A step is run again where its folder is gone, where its settings have changed, and where a step before it has run
    again with others.

    Args:
        folder: that is there.

    Attributes:
        done: the steps so far, in their order.
    """

    def __init__(self, folder: Path) -> None:
        self.done = dict[str, Done]()
        self._folder, self._key = folder, ""
        self._console = Console(stderr=True)

    def step(self, name: str, run: Callable[[Settings_], Outcome], settings: Settings_) -> None:
        """Run a job, and say how long it took and what it printed; or say that an earlier run has done it.

        Args:
            name: of the step.
            run: of the job.
            settings: of the job.
        """
        content = msgspec.json.encode([self._key, name, settings], order="sorted")
        self._key = hashlib.sha256(content).hexdigest()[:12]
        told = self._folder / f"{name}.json"
        if Path(settings.out).exists() and (earlier := _read(told)) and earlier.key == self._key:
            self.done[name] = earlier
            self._say(f"{name}: there already, {earlier.seconds:,.0f} s of an earlier run")
            return
        self._say(f"{name} ...")
        began_s = time.monotonic()
        lines = tuple(run(settings).lines())
        self.done[name] = Done(key=self._key, seconds=round(time.monotonic() - began_s, 1), lines=lines)
        with new_file(told) as draft:
            write_json(draft, self.done[name])
        self._say("\n".join([f"{name}: done in {self.done[name].seconds:,.0f} s", *(f"  {line}" for line in lines)]))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _read(path: Path) -> Done | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Done)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
