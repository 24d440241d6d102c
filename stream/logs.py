"""Logs: a JSON line each, readable colour on a terminal; Faust's and aiokafka's pass the same way, less often."""

from __future__ import annotations

import logging
import sys
import time

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from stream.settings import Settings

_PER_MINUTE = 5
_tracebacks_without_locals = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class _Repeats(logging.Filter):
    """Lets a line of other people's code through five times a minute; then says how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith(("stream.", "models.")):
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        since, count = self._seen.get(place, (now, 0))
        if now - since >= 60.0:
            if count > _PER_MINUTE:
                record.msg = f"{record.msg} [{count - _PER_MINUTE} like it held back]"
            since, count = now, 0
        self._seen[place] = (since, count + 1)
        return count < _PER_MINUTE


def configure_logs(settings: Settings) -> None:
    """Send every log line to standard error in the chosen format."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    colour = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    finish = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if colour
        else [_tracebacks_without_locals, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("faust", "mode", "aiokafka", "kafka", "aiohttp", "asyncio", "botocore", "s3fs", "fsspec"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
