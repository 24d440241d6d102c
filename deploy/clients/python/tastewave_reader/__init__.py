"""Genres and taste embeddings that tastewave keeps in Redis, for services in Python.

    from tastewave_reader import Reader

    reader = Reader.from_url("redis://localhost:6379")
    users = reader.users(["ana", "ben"])
    tracks = reader.tracks(["t1", "t2", "t3"])
    scores = users.embeddings @ tracks.embeddings.T   # (2, 3); those that are not found are rows of zeros

AsyncReader is the same for asyncio. FakeReader and FakeAsyncReader keep their answers in memory, for your own tests.

Errors:
    ReaderError
    ├── Unavailable       Redis does not answer in time, or refuses
    ├── NoLiveRelease     no release is live: no worker has ever run, or another key prefix is meant
    └── ContractBroken    what Redis holds is not as contract 1 says
"""

from tastewave_reader.errors import ContractBroken, NoLiveRelease, ReaderError, Unavailable
from tastewave_reader.fakes import FakeAsyncReader, FakeReader
from tastewave_reader.readers import AsyncReader, Reader
from tastewave_reader.rows import Tracks, Users

__all__ = [
    "AsyncReader",
    "ContractBroken",
    "FakeAsyncReader",
    "FakeReader",
    "NoLiveRelease",
    "Reader",
    "ReaderError",
    "Tracks",
    "Unavailable",
    "Users",
]
