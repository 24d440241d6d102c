"""What a process that runs for long imports first: quickly."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_quickly() -> None:
    """Import structlog and redis-py without what they load beside them, and turn Python's garbage collector off.

    structlog loads Rich, for tracebacks in colour, and redis-py loads OpenTelemetry's metrics. No process that runs for
    long uses them, and each takes a tenth of a second. So does the collector, which looks over and over at the objects
    of imports, all of which stay. Turn it on again (gc.enable) when everything is imported.
    """
    gc.disable()
    with _not_installed("rich", "opentelemetry.sdk.metrics"):
        import redis.asyncio  # noqa: F401
        import structlog  # noqa: F401


@contextmanager
def _not_installed(*modules: str) -> Iterator[None]:
    """These modules cannot be imported inside of the block, unless they have been imported before."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] - so Python itself marks what is not there
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
