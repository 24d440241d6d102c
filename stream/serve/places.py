"""How far a reader of events has come in each partition, as text that the reader hands in to go on from there."""

from __future__ import annotations

import re
from typing import Self

from models.contract import TRACKS_TAGGED, USERS_EMBEDDED
from stream.serve.event_log import EventLog

_LETTERS = {TRACKS_TAGGED: "t", USERS_EMBEDDED: "u"}
_TOPICS = {letter: topic for topic, letter in _LETTERS.items()}
_LONGEST = 100_000
_TEXT = re.compile(r"[tu][0-9]{1,18}(\.[0-9]{1,18})*|[tu]")


class Places:
    """The offset of the next record in each partition, by topic.

        places = Places.read("t12.0.7-u3")
        places.passes(TRACKS_TAGGED, 2, 7)   # True: the reader has not seen this record
        str(places)                          # "t12.0.8-u3"

    Args:
        offsets: of the partitions of each topic, by its name in the contract.
    """

    def __init__(self, offsets: dict[str, list[int]]) -> None:
        self._offsets = offsets

    @classmethod
    def read(cls, text: str) -> Self:
        """The inverse of str. Raises ValueError where the text is none."""
        parts = text.split("-")
        if len(text) > _LONGEST or not all(_TEXT.fullmatch(part) for part in parts):
            raise ValueError("this is no event id; use the one of an event, as it came")
        return cls({_TOPICS[part[0]]: [int(offset) for offset in part[1:].split(".") if offset] for part in parts})

    def __str__(self) -> str:
        return "-".join(f"{_LETTERS[topic]}{'.'.join(map(str, offsets))}" for topic, offsets in self._offsets.items())

    def follow(self, topic: str, log: EventLog) -> int:
        """Begin to follow a log. Returns the number of its first entry that may be new."""
        offsets = self._offsets.setdefault(topic, list(log.ends))
        return log.end if offsets == log.ends else log.begin

    def passes(self, topic: str, partition: int, offset: int) -> bool:
        """Go beyond a record; returns False where that was done before."""
        offsets = self._offsets[topic]
        offsets += [0] * (partition + 1 - len(offsets))
        if offset < offsets[partition]:
            return False
        offsets[partition] = offset + 1
        return True

    def skip_lost(self, topic: str, log: EventLog, *, were_handed_in: bool = False) -> bool:
        """Go beyond what the log does not keep any more; returns whether there was anything.

        Places that were handed in and that the log has not come to yet are of a topic that was made anew since.
        """
        offsets = self._offsets[topic]
        offsets += [0] * (len(log.begins) - len(offsets))
        known = list(zip(offsets, log.begins, log.ends, strict=False))
        lost = any(offset < begin or (were_handed_in and offset > end) for offset, begin, end in known)
        if lost:
            offsets[: len(known)] = [
                begin if were_handed_in and offset > end else max(offset, begin) for offset, begin, end in known
            ]
        return lost
