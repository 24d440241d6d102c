"""`tastewave topics create` and `tastewave topics check`: the topics of the contract, compared with the settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, for_code
from rich.console import Console
from rich.text import Text

from models.contract import (
    DEAD_LETTER,
    FORGOTTEN,
    LISTENS,
    TRACKS_CORRECTED,
    TRACKS_FEATURES,
    TRACKS_TAGGED,
    TRACKS_UPLOADED,
    USERS_EMBEDDED,
)
from stream.broker.operator import KafkaUnusable, kafka_client
from stream.commands.tables import print_table
from stream.settings import KafkaSettings, Settings, TopicSettings

_HOUR_MS = 3_600_000
_STYLES = {"created": "green", "there": "dim", "differs": "yellow", "missing": "red"}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is or should be; configs are Kafka's topic configurations by name."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicState:
    """A wanted topic, and whether Kafka has it; differences says where it is not as wanted, for people."""

    topic: Topic
    state: Literal["created", "there", "differs", "missing"]
    differences: tuple[str, ...] = ()


def wanted_topics(settings: TopicSettings) -> tuple[Topic, ...]:
    """The topics of the contract as the settings want them: partitions, replicas, retention, compaction and sizes."""
    common = {"min.insync.replicas": str(settings.min_insync), "max.message.bytes": str(settings.max_bytes)}
    kept = common | {"cleanup.policy": "delete", "retention.ms": str(settings.retention_h * _HOUR_MS)}
    letters = kept | {"retention.ms": str(settings.dead_letter_retention_h * _HOUR_MS)}
    compacted = common | {"cleanup.policy": "compact"}
    configs = {
        TRACKS_UPLOADED: kept,
        LISTENS: kept,
        TRACKS_TAGGED: compacted,
        TRACKS_CORRECTED: compacted,
        USERS_EMBEDDED: compacted,
        TRACKS_FEATURES: compacted,
        FORGOTTEN: compacted,
        DEAD_LETTER: letters,
    }
    return tuple(
        Topic(settings.named(name), settings.partitions, settings.replication, config)
        for name, config in configs.items()
    )


def differences(wanted: Topic, actual: Topic) -> tuple[str, ...]:
    """Where a topic is not as wanted, for people. Configurations that are not wanted in particular do not count."""
    pairs = {
        "partitions": (wanted.partitions, actual.partitions),
        "replication": (wanted.replication, actual.replication),
        **{name: (value, actual.configs.get(name)) for name, value in wanted.configs.items()},
    }
    return tuple(f"{name} is {have}, wanted {want}" for name, (want, have) in pairs.items() if have != want)


def create_topics(settings: Settings) -> list[TopicState]:
    """Create the topics that are missing; those that are there stay as they are. Raises KafkaUnusable."""
    with _admin(settings.kafka) as admin:
        states = _compare(admin, settings.topics)
        missing = [state.topic for state in states if state.state == "missing"]
        if not missing:
            return states
        _create(admin, missing)
        created = {topic.name for topic in missing}
        return [
            replace(state, state="created") if state.topic.name in created and state.state == "there" else state
            for state in _compare(admin, settings.topics)
        ]


def check_topics(settings: Settings) -> list[TopicState]:
    """Compare the topics with the settings. Raises KafkaUnusable."""
    with _admin(settings.kafka) as admin:
        return _compare(admin, settings.topics)


def print_topics(states: list[TopicState]) -> None:
    """Print a table of topics, and under it a line for each difference."""
    print_table(
        ("topic", "partitions", "replicas", "kept", "state"),
        [
            (
                state.topic.name,
                str(state.topic.partitions),
                str(state.topic.replication),
                _kept(state.topic),
                Text(state.state, style=_STYLES[state.state]),
            )
            for state in states
        ],
    )
    console = Console()
    for state in states:
        for difference in state.differences:
            console.print(f"{state.topic.name}: {difference}", style="yellow", soft_wrap=True, highlight=False)


def _kept(topic: Topic) -> str:
    if "retention.ms" in topic.configs:
        return f"{int(topic.configs['retention.ms']) // _HOUR_MS} h"
    return "latest per key"


def _admin(settings: KafkaSettings) -> AbstractContextManager[Any]:
    return kafka_client(KafkaAdminClient, settings)  # Any: type checkers bring stubs of an older kafka-python


def _create(admin: Any, topics: list[Topic]) -> None:
    answer = admin.create_topics(
        {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication,
                "configs": dict(topic.configs),
            }
            for topic in topics
        },
        raise_errors=False,
    )
    for result in answer["topics"]:
        error = for_code(result["error_code"])
        if result["error_code"] and error is not TopicAlreadyExistsError:
            raise KafkaUnusable(
                f"Kafka did not create {result['name']} ({result.get('error_message') or error.__name__}); "
                "correct TASTEWAVE_TOPIC_* or the brokers"
            )
    admin.wait_for_topics([topic.name for topic in topics])


def _compare(admin: Any, settings: TopicSettings) -> list[TopicState]:
    wanted = wanted_topics(settings)
    actual = describe_topics(admin, [topic.name for topic in wanted])
    states: list[TopicState] = []
    for topic in wanted:
        if topic.name not in actual:
            states.append(TopicState(topic, "missing"))
            continue
        differing = differences(topic, actual[topic.name])
        states.append(TopicState(topic, "differs" if differing else "there", differing))
    return states


def describe_topics(admin: Any, names: Collection[str]) -> dict[str, Topic]:
    """Those of the topics that Kafka has."""
    present = sorted(set(admin.list_topics()) & set(names))
    if not present:
        return {}
    topics: list[dict[str, Any]] = admin.describe_topics(present)
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    return {
        topic["name"]: Topic(
            topic["name"],
            len(topic["partitions"]),
            min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            {name: config["value"] for name, config in configs[topic["name"]].items()},
        )
        for topic in topics
    }
