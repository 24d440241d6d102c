"""The folder of a dump: which offsets its files cover, and how a new file appears there whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import TastewaveError
from offline.files import sync

TOPIC_ID = b"tastewave.topic_id"
"""Key of the Parquet metadata under which a file keeps Kafka's id of the topic."""

_CONTENTS = ("listens", "forgotten", "corrected")
_DRAFT = re.compile(rf"\.({'|'.join(_CONTENTS)}|malformed)-.+\.partial")
_PARQUET = re.compile(
    rf"({'|'.join(_CONTENTS)})-(?P<topic>.+)-p(?P<partition>\d{{5,}})-(?P<first>\d{{12,}})-(?P<end>\d{{12,}})\.parquet"
)
_MALFORMED = re.compile(r"malformed-(.+-p\d{5,}-\d{12,}-\d{12,})\.jsonl")


class DumpFailed(TastewaveError):
    """Kafka does not do what a dump needs, or the folder holds another topic of the same name."""


class Span(NamedTuple):
    """Offsets of a partition: from `first` to before `end`."""

    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """A file of the log in memory, and the JSON lines that tell of its malformed events.

    Attributes:
        content: listens, forgotten or corrected; the names of the Parquet files begin with it.
        topic, partition, span: the offsets that the file covers.
        events: rows of the Parquet file.
        malformed: lines of the JSON file.
        parquet: content of the Parquet file.
        lines: content of the JSON file; empty where no event is malformed.
    """

    content: str
    topic: str
    partition: int
    span: Span
    events: int
    malformed: int
    parquet: pa.Buffer
    lines: bytes

    @property
    def stem(self) -> str:
        """The part of the names that both files share."""
        return f"{self.topic}-p{self.partition:05d}-{self.span.first:012d}-{self.span.end:012d}"


def gaps(wanted: Span, covered: Iterable[Span]) -> list[Span]:
    """The parts of a span that none of the others covers, in order.

    Example:
        >>> gaps(Span(0, 10), [Span(2, 4), Span(8, 12)])
        [Span(first=0, end=2), Span(first=4, end=8)]
    """
    uncovered, first = [], wanted.first
    for span in sorted(covered):
        if first < min(span.first, wanted.end):
            uncovered.append(Span(first, min(span.first, wanted.end)))
        first = max(first, span.end)
    if first < wanted.end:
        uncovered.append(Span(first, wanted.end))
    return uncovered


def held(folder: Path, topic: str) -> dict[int, dict[Span, Path]]:
    """The files of a topic in a folder by partition and offsets, in order.

    Raises:
        DumpFailed: two files cover the same offsets.
        OSError: the folder cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir())
    files: dict[int, dict[Span, Path]] = {}
    for name in names:
        if (match := _PARQUET.fullmatch(name)) and match["topic"] == topic:
            span = Span(int(match["first"]), int(match["end"]))
            files.setdefault(int(match["partition"]), {})[span] = folder / name
    for partition, of_partition in files.items():
        ordered = files[partition] = dict(sorted(of_partition.items()))
        for before, after in pairwise(ordered):
            if after.first < before.end:
                raise DumpFailed(
                    f"{ordered[before]} and {ordered[after].name} cover the same offsets, so that events are doubled; "
                    "remove one of them with its malformed-*.jsonl, and run this again"
                )
    return files


def tidy(folder: Path) -> None:
    """Remove what killed dumps left: files without their final name, and side files without a Parquet file."""
    names = {path.name for path in folder.iterdir()}
    for name in names:
        side = _MALFORMED.fullmatch(name)
        whole = names & {f"{content}-{side[1]}.parquet" for content in _CONTENTS} if side else ()
        if _DRAFT.fullmatch(name) or (side and not whole):
            (folder / name).unlink()


def publish(folder: Path, file: LogFile) -> None:
    """Write a file and its side file to the disk, and only then rename them, the Parquet file last.

    Raises:
        OSError: the disk does not take them; neither file is left there in part.
    """
    contents = {f"malformed-{file.stem}.jsonl": file.lines, f"{file.content}-{file.stem}.parquet": file.parquet}
    contents = {folder / name: content for name, content in contents.items() if len(content)}
    drafts = {path: path.with_name(f".{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            with drafts[path].open("wb") as draft:
                draft.write(content)
                draft.flush()
                os.fsync(draft.fileno())
        for path, draft in drafts.items():
            draft.rename(path)
            sync(folder)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def check_topic_id(files: Mapping[int, Mapping[Span, Path]], topic_id: str) -> None:
    """Raise DumpFailed where the last file of a partition is of another topic that had the same name."""
    for path in (list(spans.values())[-1] for spans in files.values()):
        try:
            id_there = (pq.read_schema(path).metadata or {}).get(TOPIC_ID, b"").decode()
        except (OSError, pa.ArrowInvalid) as error:
            raise DumpFailed(f"{path} cannot be read ({error}); mend or remove it, and run this again") from error
        if topic_id and id_there and id_there != topic_id:
            raise other_topic(path, f"the topic had the id {id_there} there and has {topic_id} here")


def other_topic(path: Path, why: str) -> DumpFailed:
    """The error where a file of the folder cannot be of this topic."""
    return DumpFailed(
        f"{path} was not dumped from this topic, which was made anew or lies in another cluster ({why}); "
        "dump to another folder, and name both as the log"
    )
