"""JSON Schemas of the events, for services in other languages: `python -m models.schemas deploy/schemas` writes them.

What a schema cannot say is checked by the structs alone: an id has at most 256 bytes (not characters) of
UTF-8, and an integer is written without a fraction (1, not 1.0).
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from models.events import JSON_EVENTS, Listen

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_PLAY_AND_SKIP = {
    "if": {"properties": {"kind": {"enum": ["play", "skip"]}}},
    "then": {
        "required": ["played_ms", "duration_ms"],
        "properties": {"played_ms": {"type": "integer"}, "duration_ms": {"type": "integer"}},
    },
}


def json_schemas() -> dict[str, bytes]:
    """File name to JSON text of the schema of each JSON event."""
    return {f"{topic}.json": _schema(kind) for topic, kind in JSON_EVENTS.items()}


def _schema(kind: type[msgspec.Struct]) -> bytes:
    schema: dict[str, Any] = msgspec.json.schema(kind)["$defs"][kind.__name__]
    schema["description"] = inspect.cleandoc(schema["description"])
    rules = _PLAY_AND_SKIP if kind is Listen else {}
    return msgspec.json.format(msgspec.json.encode({"$schema": _DRAFT} | schema | rules), indent=2) + b"\n"


if __name__ == "__main__":
    for name, text in json_schemas().items():
        (Path(sys.argv[1]) / name).write_bytes(text)
