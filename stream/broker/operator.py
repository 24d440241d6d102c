"""Clients of kafka-python for commands: when Kafka is away, they say so in one sentence within seconds."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import TopicPartition

from models.errors import TastewaveError
from stream.broker.header_names import read_all_header_names
from stream.broker.tokens import kafka_python_arguments
from stream.settings import KafkaSettings, Settings

_BOOTSTRAP_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0

Client_ = TypeVar("Client_")


class KafkaUnusable(TastewaveError):
    """Kafka cannot be reached, or refuses what a command asks for."""


@contextlib.contextmanager
def kafka_client(kind: Callable[..., Client_], settings: KafkaSettings, **options: Any) -> Iterator[Client_]:
    """A KafkaAdminClient, KafkaProducer or KafkaConsumer for a `with` block, closed at its end.

        with kafka_client(KafkaConsumer, settings.kafka, enable_auto_commit=False) as consumer:
            consumer.end_offsets(partitions_of(consumer, "tastewave.listens"))

    Args:
        kind: the class of the client.
        settings: how to reach Kafka.
        options: further arguments of the class.

    Raises:
        KafkaUnusable: Kafka does not answer within 5 s, or a KafkaError is raised inside the block.
    """
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it logs each try, and every error that it raises as well
    read_all_header_names()
    if kind is KafkaConsumer:
        options = {"isolation_level": "read_committed"} | options  # as workers and dumps read
    try:
        client: Any = kind(
            **kafka_python_arguments(settings),
            client_id="tastewave",
            bootstrap_timeout_ms=int(_BOOTSTRAP_TIMEOUT_S * 1000),
            **options,
        )
        with contextlib.closing(client):
            yield client
    except KafkaError as error:
        raise KafkaUnusable(
            f"Kafka at {', '.join(settings.brokers)} cannot be used ({settings.redacted(str(error))}); "
            "check that it runs, TASTEWAVE_KAFKA_BROKERS and the credentials"
        ) from error


DELIVERY_TIMEOUT_S = 30.0
"""How long a command waits until Kafka has taken a record."""


def kafka_producer(settings: Settings, **options: Any) -> contextlib.AbstractContextManager[KafkaProducer]:
    """A KafkaProducer for a `with` block, which gives a record up after DELIVERY_TIMEOUT_S. Raises as kafka_client."""
    return kafka_client(
        KafkaProducer,
        settings.kafka,
        acks="all",
        allow_auto_create_topics=False,
        max_request_size=settings.topics.max_bytes,
        max_block_ms=int(DELIVERY_TIMEOUT_S * 1000),
        request_timeout_ms=int(DELIVERY_TIMEOUT_S * 500),
        delivery_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
        **options,
    )


def partitions_of(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic. Raises KafkaUnusable where it is missing."""
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise KafkaUnusable(f"Kafka has no topic {topic}; run `tastewave topics create`")
    return [TopicPartition(topic, number) for number in sorted(numbers)]


def records_between(
    consumer: KafkaConsumer, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Iterator[ConsumerRecord]:
    """The records of each partition from its start up to its end, and those beyond that the last fetch brings along.

    Args:
        consumer: gets these partitions assigned.
        starts: the offset of the first record, for each partition.
        ends: the offset after the last record, for each partition.

    Raises:
        KafkaTimeoutError: none came for 30 s.
    """
    unread = [place for place in ends if starts[place] < ends[place]]
    consumer.assign(unread)
    for place in unread:
        consumer.seek(place, starts[place])
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while unread:
        if time.monotonic() > deadline:
            raise KafkaTimeoutError(f"no record came for {_READ_TIMEOUT_S:.0f} s")
        for records in consumer.poll(timeout_ms=500).values():
            yield from records
            deadline = time.monotonic() + _READ_TIMEOUT_S
        unread = [place for place in unread if (consumer.position(place) or 0) < ends[place]]
