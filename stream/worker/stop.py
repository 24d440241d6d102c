"""SIGTERM and SIGINT before the event loop of a worker takes them over."""

from __future__ import annotations

import signal
from typing import Any


def end_at_signals() -> None:
    """End the process with status 0 at the first SIGTERM or SIGINT, whatever it imports, reads or downloads then.

    Without a handler, the kernel does not deliver them at all to process 1 of a container.
    """

    def end(*_: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # a second one must not break off the end
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
