"""Logs: a JSON line each, readable colour on a terminal; no line of the code fills them, whatever happens."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, JSONRenderer, format_exc_info
from structlog.tracebacks import ExceptionDictTransformer

from stream.settings import Settings

_PER_MINUTE = 5
_OURS_PER_MINUTE = 100
_tracebacks_without_locals = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class _Repeats(logging.Filter):
    """Lets each line of the code through so many times a minute; then says how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        most = _OURS_PER_MINUTE if record.name.startswith(("stream.", "models.")) else _PER_MINUTE
        place, now = (record.pathname, record.lineno), time.monotonic()
        since, count = self._seen.get(place, (now, 0))
        if now - since >= 60.0:
            if count > most:
                record.__dict__["held_back"] = count - most
            since, count = now, 0
        self._seen[place] = (since, count + 1)
        return count < most


def configure_logs(settings: Settings) -> None:
    """Send every log line, and what ends the process, to standard error in the chosen format, without passwords."""

    def redact(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: redact(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [redact(part) for part in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return settings.redacted(value if isinstance(value, str) else repr(value))

    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    colour = settings.worker.log_format == "console" or (settings.worker.log_format == "auto" and sys.stderr.isatty())
    tracebacks, render = (
        (format_exc_info, ConsoleRenderer(exception_formatter=plain_traceback))
        if colour
        else (_tracebacks_without_locals, JSONRenderer())
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
            processors=[
                structlog.stdlib.ExtraAdder(allow=["held_back"]),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                tracebacks,
                lambda _, __, fields: redact(fields),
                render,
            ],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = logging.getLevelNamesMapping()[settings.worker.log_level.upper()]
    root.setLevel(max(logging.WARNING, level))  # below that, other people's code tells what it sends to whom
    for ours in ("stream", "models"):
        logging.getLogger(ours).setLevel(level)
    sys.excepthook = lambda *error: logging.getLogger("stream").critical("process.crashed", exc_info=error)
