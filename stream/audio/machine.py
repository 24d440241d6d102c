"""What the worker's own machine lacks: space on its disk, open files, memory or threads.

Such an error is the fault of no event and no audio. Its record waits until the machine has again what it lacks.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator

from models.errors import TastewaveError

_SPACE = "free space in the folder for temporary files, or let TMPDIR name another one"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: _SPACE,
    errno.EMFILE: "raise the worker's limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files (sysctl fs.file-max)",
    errno.ENOMEM: "give the machine memory, or the worker fewer pool processes",
    errno.ENOBUFS: "give the machine memory for its network",
}
_NO_THREAD = "can't start new thread"
_TRIAL_BYTES = 1 << 20


class MachineUnusable(TastewaveError):
    """The worker's machine lacks what a record needs."""


def lacking(error: BaseException) -> MachineUnusable | None:
    """What the machine lacks, where this error or one that it came from says so; None where it has another cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MachineUnusable):
            return cause
        if isinstance(cause, OSError) and cause.errno in _ADVICE:
            return _unusable(cause)
        if isinstance(cause, RuntimeError) and _NO_THREAD in str(cause):
            return MachineUnusable(
                f"the worker's machine lacks threads ({_NO_THREAD}); raise the limit of processes of the worker or of "
                "its container"
            )
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def own_disk() -> Iterator[None]:
    """Around work on temporary files, where every OSError is the machine's. Raises MachineUnusable."""
    try:
        yield
    except OSError as error:
        raise _unusable(error) from None


def try_disk() -> None:
    """Keep a temporary file for a moment, as a download does. Raises MachineUnusable."""
    with own_disk(), tempfile.TemporaryFile(buffering=0) as file:
        file.write(bytes(_TRIAL_BYTES))


def _unusable(error: OSError) -> MachineUnusable:
    advice = _ADVICE.get(error.errno or 0, _SPACE)
    return MachineUnusable(f"the worker's machine cannot take audio ({error.strerror or error}); {advice}")
