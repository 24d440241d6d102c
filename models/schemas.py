"""JSON Schemas of the events and an AsyncAPI document of the topics, for services in other languages.

`python -m models.schemas deploy/schemas` writes them.

What a schema cannot say is checked by the structs alone: an id has at most 256 bytes (not characters) of
UTF-8, and an integer is written without a fraction (1, not 1.0).
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from models.contract import (
    CONTRACT,
    DEAD_LETTER,
    FORGOTTEN,
    LISTENS,
    TRACKS_CORRECTED,
    TRACKS_FEATURES,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    USERS_EMBEDDED,
)
from models.events import JSON_EVENTS, Listen, TrackFeatures

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_FORMAT = "application/schema+json;version=draft-2020-12"
ASYNCAPI = "asyncapi.json"
"""Name of the AsyncAPI document beside the schemas."""
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


_TOPICS: dict[str, tuple[str, str, bool, str]] = {
    TRACKS_UPLOADED: ("receive", "track_id", False, "Tracks to hear. A platform publishes them."),
    LISTENS: ("receive", "user_id", False, "What people listen to. A platform publishes them."),
    TRACKS_TAGGED: ("send", "<release>:<track_id>", True, "Answers to uploads; an empty value: it was taken back."),
    USERS_EMBEDDED: ("send", "<release>:<user_id>", True, "Where people stand; an empty value: they were forgotten."),
    TRACKS_CORRECTED: ("send", "track_id", True, "Genres that editors gave tracks."),
    TRACKS_FEATURES: ("send", "track_id", True, "What was heard in a track; an empty value: it was taken back."),
    FORGOTTEN: ("send", "user:<id> or track:<id>", True, "Who and what was forgotten, and up to when."),
    DEAD_LETTER: ("send", "that of the event", False, "Events that could not be answered, with the reason as headers."),
}  # what tastewave does there, the key, whether the topic is compacted, what is on it
_REASONS = {
    "tastewave.reason": "why it could not be answered, one of the reasons of the contract",
    "tastewave.message": "what is wrong, what was found and what to do",
    "tastewave.source.topic": "topic of the event",
    "tastewave.source.partition": "its partition",
    "tastewave.source.offset": "its offset",
    "tastewave.attempts": "how often the worker tried",
    "tastewave.release": "release of the worker",
    "tastewave.time": "when it was given up, ms",
    "tastewave.truncated": "true where the event was cut, otherwise false",
}


def asyncapi() -> bytes:
    """JSON text of the AsyncAPI 3.0 document of the topics; its payloads are the schemas beside it."""
    messages = {f"tastewave.{topic}": _message(kind.__name__, topic) for topic, kind in JSON_EVENTS.items()}
    messages[TRACKS_FEATURES] = {
        "name": TrackFeatures.__name__,
        "contentType": "application/msgpack",
        "payload": {
            "schemaFormat": _FORMAT,
            "schema": {"type": "object", "required": list(TrackFeatures.__struct_fields__)},
        },
    }
    texts = {name: {"type": "string", "description": told} for name, told in _REASONS.items()}
    messages[DEAD_LETTER] = {
        "name": "DeadLetter",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "required": list(texts), "properties": texts},
    }
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tastewave",
            "version": str(CONTRACT),
            "description": "The topics of contract 1. A platform may put a prefix before their names.",
        },
        "defaultContentType": "application/json",
        "channels": {},
        "operations": {},
        "components": {"messages": {}},
    }
    for topic, (action, key, is_compacted, told) in _TOPICS.items():
        message = messages[topic]
        name = message["name"]
        document["channels"][name] = {
            "address": topic,
            "description": told,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {
                "kafka": {"topicConfiguration": {"cleanup.policy": ["compact" if is_compacted else "delete"]}},
            },
        }
        document["operations"][f"{action}{name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        }
        document["components"]["messages"][name] = message | {
            "bindings": {"kafka": {"key": {"type": "string", "description": key}}}
        }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _message(name: str, topic: str) -> dict[str, Any]:
    return {"name": name, "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": f"./{topic}.json"}}}


if __name__ == "__main__":
    for name, text in (json_schemas() | {ASYNCAPI: asyncapi()}).items():
        (Path(sys.argv[1]) / name).write_bytes(text)
