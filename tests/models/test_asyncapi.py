"""The AsyncAPI document of the topics: whole, true to the contract, and nothing in it leads nowhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

import deploy
from models.schemas import ASYNCAPI, asyncapi
from stream.broker.dead_letters import HEADERS
from stream.commands.topics import wanted_topics
from stream.settings import TopicSettings

SCHEMAS = Path(deploy.__file__).parent / "schemas"
DOCUMENT: dict[str, Any] = json.loads((SCHEMAS / ASYNCAPI).read_bytes())

REFERENCE = {"type": "object", "required": ["$ref"], "properties": {"$ref": {}}, "additionalProperties": False}
SHAPE = {  # what AsyncAPI 3.0 asks of a document such as this one
    "type": "object",
    "required": ["asyncapi", "info"],
    "additionalProperties": False,
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "defaultContentType": {"type": "string"},
        "channels": {
            "additionalProperties": {
                "required": ["address", "messages"],
                "properties": {"messages": {"additionalProperties": REFERENCE}},
            }
        },
        "operations": {
            "additionalProperties": {
                "required": ["action", "channel"],
                "additionalProperties": False,
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": REFERENCE,
                    "messages": {"type": "array", "items": REFERENCE},
                },
            }
        },
        "components": {
            "additionalProperties": False,
            "properties": {
                "messages": {
                    "additionalProperties": {
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "contentType": {"type": "string"},
                            "headers": {"type": "object"},
                            "bindings": {"type": "object", "required": ["kafka"]},
                            "payload": {"type": "object", "required": ["schemaFormat", "schema"]},
                        },
                    }
                }
            },
        },
    },
}


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolved(reference: str) -> Any:
    file, _, pointer = reference.partition("#")
    part = json.loads((SCHEMAS / file).read_bytes()) if file else DOCUMENT
    for word in filter(None, pointer.split("/")):
        part = part[word.replace("~1", "/").replace("~0", "~")]
    return part


def test_the_document_in_the_repository_is_that_of_the_code_and_of_the_shape_of_asyncapi_3() -> None:
    assert (SCHEMAS / ASYNCAPI).read_bytes() == asyncapi()
    jsonschema.validate(DOCUMENT, SHAPE)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert len(found) == 3 * 8 + 6
    for reference in found:
        target = resolved(reference)
        if reference.startswith("./"):
            jsonschema.Draft202012Validator.check_schema(target)
        assert target


def test_it_has_every_topic_with_its_compaction_and_the_headers_of_a_dead_letter() -> None:
    def policy(channel: dict[str, Any]) -> str:
        (policy,) = channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"]
        return policy

    wanted = {topic.name: topic.configs["cleanup.policy"] for topic in wanted_topics(TopicSettings())}
    assert {channel["address"]: policy(channel) for channel in DOCUMENT["channels"].values()} == wanted
    headers = DOCUMENT["components"]["messages"]["DeadLetter"]["headers"]["properties"]
    assert set(headers) == set(HEADERS.values())
