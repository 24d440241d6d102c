"""The time as events state it, and waiting for a condition."""

import time
from collections.abc import Callable
from typing import Any


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    """Ask again and again until the answer is true, and return it. Fails after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return result
