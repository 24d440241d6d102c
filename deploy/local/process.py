"""A server process, and a cluster of them: start, wait for an answer, hurt on purpose, stop, clean up."""

from __future__ import annotations

import contextlib
import fcntl
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from models.errors import TastewaveError

BUILD = Path(__file__).parents[2] / "build"
LOG_LINES = 15
_HELD = deque[socket.socket](maxlen=50)  # by then a server listens at the oldest
INSTALL = "run deploy/local/system.sh, which installs it or says how"


class LaunchError(TastewaveError):
    """A server, or something it needs, cannot be started."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file (made where missing), across processes; freed when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_free(port: int) -> bool:
    """Whether a server can listen on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free loopback port below the range that outgoing connections take theirs from.

    Inside that range a client that retries while its server is down can connect to itself, and keep
    the server from coming back. Until a server listens there, no other process that asks gets the same port: the UDP
    port of that number is held.
    """
    while True:
        port, held = random.SystemRandom().randrange(10_000, 32_000), socket.socket(type=socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # another process holds it
            held.bind(("127.0.0.1", port))
            if is_free(port):
                _HELD.append(held)
                return port
        held.close()


def tail(log: Path, *, lines: int = LOG_LINES) -> str:
    """The last lines of a log file; empty where it does not exist."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def bound(command: list[str]) -> list[str]:
    """The command, wrapped so that the kernel kills its process when the thread that started it ends."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


class Launched(ABC):
    """A server or a cluster of them: launch, wait, close. As a context manager it does all three.

    Launch several, then wait for each, to let them start side by side.
    """

    @abstractmethod
    def launch(self) -> None:
        """Start without waiting for an answer. Raises LaunchError."""

    @abstractmethod
    def wait(self) -> None:
        """Return when there is a real answer. Raises LaunchError, with the end of the log, if none comes."""

    @abstractmethod
    def close(self) -> None:
        """Stop, and remove what is temporary."""

    def start(self) -> Self:
        """Launch and wait."""
        self.launch()
        self.wait()
        return self

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Server(Launched):
    """One server on loopback with a folder of its own.

    It dies with the thread that launched it, even when that is killed, unless it `outlives` it.

    Args:
        folder: holds data and log; a temporary one, removed by close(), when absent.
        port: loopback port; a free one when absent. It stays the same over restarts.
        outlives: whether the server goes on after this process has ended.
    """

    name: ClassVar[str]
    start_timeout_s: ClassVar[float] = 60.0
    stop_timeout_s: ClassVar[float] = 20.0

    def __init__(self, *, folder: Path | None = None, port: int | None = None, outlives: bool = False) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"tastewave-{self.name}-"))
        self.port = port or free_port()
        self._outlives = outlives
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """Process id. Raises LaunchError when the server does not run."""
        return self._running().pid

    @abstractmethod
    def _command(self) -> list[str]:
        """Prepare the folder and say how to start the server in it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server gives a real answer now."""

    def launch(self) -> None:
        """Start the process without waiting for its first answer. Raises LaunchError where it cannot be started."""
        if not is_free(self.port):  # another server would answer, and be taken for this one
            raise LaunchError(
                f"{self.name} needs port {self.port}, which is taken; stop what uses it or choose another"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self._command()
        if not self._outlives:
            command = bound(command)
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except FileNotFoundError as error:
            raise LaunchError(f"{self.name} needs {error.filename}, which is not installed; {INSTALL}") from None

    def wait(self) -> None:
        """Return at the first real answer. Raises LaunchError, with the end of the log, if none comes."""
        process, deadline = self._running(), time.monotonic() + self.start_timeout_s
        while not self._answers():
            if process.poll() is not None:
                raise LaunchError(f"{self.name} ended with status {process.returncode}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                self.kill()
                raise LaunchError(
                    f"{self.name} gave no answer in {self.start_timeout_s:.0f} s, see {self.log}:\n{tail(self.log)}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server in good order, by force if it takes too long; nothing happens where it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: the server cannot write anything to disk before it ends."""
        self._running().kill()
        self._running().wait()
        self._process = None

    def restart(self) -> None:
        """Stop (where it runs) and start again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after pause()."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the folder if it is temporary."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LaunchError(f"{self.name} is not running; call start() first")
        return self._process


AnyServer = TypeVar("AnyServer", bound=Server)


class Cluster(Launched, Generic[AnyServer]):
    """Servers on loopback that form one cluster.

    Attributes:
        nodes: its servers. Kill, pause, resume or restart any of them to hurt the cluster.
    """

    def __init__(self, nodes: Sequence[AnyServer]) -> None:
        self.nodes = tuple(nodes)

    def launch(self) -> None:
        """Start all without waiting for an answer. Raises LaunchError."""
        for node in self.nodes:
            node.launch()

    def wait(self) -> None:
        """Return when each node answers. Raises LaunchError, with the end of the log, of the first that does not."""
        for node in self.nodes:
            node.wait()

    def close(self) -> None:
        """Stop all, and remove their data."""
        for node in self.nodes:
            node.close()
