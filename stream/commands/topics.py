"""`tastewave topics create|check`: the topics of the contract, made as the settings say and compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, for_code

from models.contract import DEAD_LETTER, LISTENS, TRACKS_FEATURES, TRACKS_TAGGED, TRACKS_UPLOADED, USERS_EMBEDDED
from stream.broker.operator import KafkaUnusable, kafka_client
from stream.settings import Settings

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is or should be; configs are Kafka's topic configurations by name."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicState:
    """What was found of a wanted topic, in words where it differs."""

    topic: Topic
    state: Literal["created", "there", "differs", "missing"]
    differences: tuple[str, ...] = ()


def wanted_topics(settings: Settings) -> tuple[Topic, ...]:
    """The topics of the contract with partitions, replication, retention, compaction and sizes of the settings."""
    common = {
        "min.insync.replicas": str(settings.topics.min_insync),
        "max.message.bytes": str(settings.topics.max_bytes),
    }
    kept = common | {"cleanup.policy": "delete", "retention.ms": str(settings.topics.retention_h * _HOUR_MS)}
    letters = kept | {"retention.ms": str(settings.topics.dead_letter_retention_h * _HOUR_MS)}
    compacted = common | {"cleanup.policy": "compact"}
    configs = {
        TRACKS_UPLOADED: kept,
        LISTENS: kept,
        TRACKS_TAGGED: compacted,
        USERS_EMBEDDED: compacted,
        TRACKS_FEATURES: compacted,
        DEAD_LETTER: letters,
    }
    return tuple(
        Topic(settings.topics.named(name), settings.topics.partitions, settings.topics.replication, config)
        for name, config in configs.items()
    )


def differences(wanted: Topic, found: Topic) -> tuple[str, ...]:
    """Where a topic is not as wanted, for people."""
    pairs = {
        "partitions": (wanted.partitions, found.partitions),
        "replication": (wanted.replication, found.replication),
        **{name: (value, found.configs.get(name)) for name, value in wanted.configs.items()},
    }
    return tuple(f"{name} is {have}, wanted {want}" for name, (want, have) in pairs.items() if have != want)


def create_topics(settings: Settings) -> list[TopicState]:
    """Create the topics that are missing; those that are there stay as they are. Raises KafkaUnusable."""
    with _admin(settings) as admin:
        states = _compare(admin, settings)
        missing = [state.topic for state in states if state.state == "missing"]
        if not missing:
            return states
        _create(admin, missing)
        created = {topic.name for topic in missing}
        return [
            replace(state, state="created") if state.topic.name in created and state.state == "there" else state
            for state in _compare(admin, settings)
        ]


def check_topics(settings: Settings) -> list[TopicState]:
    """Compare the topics with the settings. Raises KafkaUnusable."""
    with _admin(settings) as admin:
        return _compare(admin, settings)


def print_topics(states: list[TopicState]) -> None:
    """Print a table of topics."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    style = {"created": "green", "there": "dim", "differs": "yellow", "missing": "red"}
    table = Table("topic", "partitions", "replicas", "kept", "state", box=box.SIMPLE_HEAD)
    for state in states:
        configs = state.topic.configs
        kept = f"{int(configs['retention.ms']) // _HOUR_MS} h" if "retention.ms" in configs else "latest per key"
        table.add_row(
            state.topic.name,
            str(state.topic.partitions),
            str(state.topic.replication),
            kept,
            f"[{style[state.state]}]{state.state}",
        )
    console = Console()
    console.print(table)
    for state in states:
        for difference in state.differences:
            console.print(f"{state.topic.name}: {difference}", style="yellow", soft_wrap=True, highlight=False)


def _admin(settings: Settings) -> AbstractContextManager[Any]:
    return kafka_client(
        KafkaAdminClient, settings.kafka
    )  # Any: the stubs that type checkers bring know an older client


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


def _compare(admin: Any, settings: Settings) -> list[TopicState]:
    wanted = wanted_topics(settings)
    found = _describe(admin, [topic.name for topic in wanted])
    states: list[TopicState] = []
    for topic in wanted:
        if topic.name not in found:
            states.append(TopicState(topic, "missing"))
            continue
        differing = differences(topic, found[topic.name])
        states.append(TopicState(topic, "differs" if differing else "there", differing))
    return states


def _describe(admin: Any, names: list[str]) -> dict[str, Topic]:
    there = set(admin.list_topics()) & set(names)
    if not there:
        return {}
    topics: list[dict[str, Any]] = admin.describe_topics(sorted(there))
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(there)]
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
