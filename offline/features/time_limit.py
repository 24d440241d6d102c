"""A limit on the time that a piece of work may take, in whatever code it hangs."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import ProcessTimedOut


@contextmanager
def time_limit(limit_s: float, *, what: str) -> Iterator[None]:
    """Raise ProcessTimedOut where the block takes longer; end the process where it does not come to that.

    Python raises an error in its own code, such as one that waits for a network. Code in C that never comes back to it
    ends with the whole process, by a thread that needs no Python, after twice the time.

        with time_limit(600, what="hearing the track"):
            ...

    Args:
        limit_s: seconds.
        what: for the message.
    """

    def late(*_: object) -> None:
        raise ProcessTimedOut(f"{what} took longer than {limit_s:g} s; check the file, or raise max_file_s")

    before = signal.signal(signal.SIGALRM, late)
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(2 * limit_s, exit=True, file=nowhere)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, before)
