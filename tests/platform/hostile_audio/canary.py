"""A file and a port that no upload may reach, watched while a test decodes what tries to."""

import fcntl
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.platform.hostile_audio.inputs import unharmed


@dataclass(frozen=True)
class Target:
    """What hostile inputs try to reach: a file outside the folders of uploads, and a port of loopback."""

    path: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/canary.aac"


@contextmanager
def watched(target_folder: Path) -> Iterator[tuple[Target, list[str]]]:
    """Put a target into the folder, and list what touches it.

        with watched(folder) as (target, touched):
            ...  # decode what points at target.path or target.url
        assert touched == []

    Openings of the file are listed at once (the kernel signals them to the holder of a lease on the file);
    connections and datagrams at the end of the block. The file holds good audio: a track that led to it would be
    heard.
    """
    path = target_folder / "canary.aac"
    path.write_bytes(unharmed("aac"))
    touched: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        path.open("r+b") as canary,
    ):
        datagrams.bind(listener.getsockname())
        for waiting in (listener, datagrams):
            waiting.setblocking(False)

        def opened(*_: object) -> None:
            touched.append("the file was opened")
            fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_UNLCK)  # the opener waits for this

        previous = signal.signal(signal.SIGIO, opened)
        fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        try:
            yield Target(path, listener.getsockname()[1]), touched
        finally:
            with suppress(BlockingIOError):
                listener.accept()[0].close()
                touched.append("the port was connected to")
            with suppress(BlockingIOError):
                datagrams.recv(1)
                touched.append("the port got a datagram")
            with suppress(BlockingIOError):  # an opening has ended the lease already
                fcntl.fcntl(canary, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, previous)
