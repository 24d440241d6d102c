"""What a dump asks of Kafka: the partitions of a topic, their offsets, and the records from an offset on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import (
    CorruptRecordError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    for_code,
)
from kafka.structs import TopicPartition
from msgspec import Meta

from offline.interactions.dump_folder import DumpFailed, Span
from offline.interactions.dump_parquet import Record
from offline.interactions.header_names import read_all_header_names

READING: dict[str, Any] = {
    "auto_offset_reset": "none",  # an offset that is gone raises, and PartitionReader tells of it
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "allow_auto_create_topics": False,
    "max_partition_fetch_bytes": 8 * 2**20,
    "metrics_enabled": False,
}
"""How a KafkaConsumer reads for a dump."""

_BOOTSTRAP_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 30.0

Client_ = TypeVar("Client_")


class KafkaArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connection arguments of kafka-python, under its names."""

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="Protocol to the brokers: with or without TLS (SSL), with or without a password (SASL)."),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Meta(description="SASL mechanism.")
    ] = None
    sasl_plain_username: Annotated[str | None, Meta(description="SASL user.")] = None
    sasl_plain_password: Annotated[
        str | None,
        Meta(description="SASL password; put it into a file, not on the command line."),
    ] = None
    ssl_cafile: Annotated[str | None, Meta(description="File of CA certificates (PEM).")] = None
    ssl_certfile: Annotated[str | None, Meta(description="File of the client's certificate (PEM).")] = None
    ssl_keyfile: Annotated[str | None, Meta(description="File of the client's private key (PEM).")] = None
    ssl_password: Annotated[str | None, Meta(description="Password of the private key.")] = None
    ssl_check_hostname: Annotated[bool, Meta(description="Whether a broker's certificate must name its host.")] = True

    def __post_init__(self) -> None:
        if "SASL" in self.security_protocol:
            for name in ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password"):
                if not getattr(self, name):
                    raise ValueError(f"{self.security_protocol} needs {name}")
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if (path := getattr(self, name)) and not Path(path).is_file():
                raise ValueError(f"{name} {path} is no file")

    def redacted(self, text: str) -> str:
        """A text with *** for each password: texts of errors may repeat an argument."""
        for password in (self.sasl_plain_password, self.ssl_password):
            if password:
                text = text.replace(password, "***")
        return text


class Cluster:
    """A Kafka to dump from.

    Args:
        brokers: host:port, comma separated.
        arguments: for its clients.
    """

    def __init__(self, brokers: str, arguments: KafkaArguments) -> None:
        self.brokers = brokers
        self._arguments = arguments

    def find_topic(self, name: str, *, partitions: Sequence[int]) -> tuple[list[TopicPartition], str]:
        """The partitions to dump, and the topic's id ("" where Kafka gives none).

        Args:
            name: of the topic.
            partitions: which ones are wanted; all of them when empty.

        Raises:
            DumpFailed: Kafka is away, or there is no such topic or partition.
        """
        with self._client(KafkaAdminClient) as admin:
            (topic,) = admin.describe_topics([name])
            error = for_code(topic["error_code"])
            if error in (UnknownTopicOrPartitionError, InvalidTopicError):
                raise DumpFailed(f"Kafka at {self.brokers} has no topic {name}; name it with --topic, prefix and all")
            if error is not NoError:
                raise error
        there = sorted(partition["partition_index"] for partition in topic["partitions"])
        if missing := sorted(set(partitions) - set(there)):
            raise DumpFailed(f"{name} has the partitions 0 to {there[-1]}, and no {missing[0]}; see --partition")
        wanted = partitions or there
        return [TopicPartition(name, number) for number in there if number in wanted], str(topic.get("topic_id") or "")

    @contextlib.contextmanager
    def consumer(self) -> Iterator[KafkaConsumer]:
        """A consumer that reads for a dump, closed at the end.

        Raises:
            DumpFailed: Kafka does not answer, or fails inside the block.
        """
        with self._client(KafkaConsumer, **READING) as consumer:
            yield consumer

    @contextlib.contextmanager
    def _client(self, kind: Callable[..., Client_], **options: Any) -> Iterator[Client_]:
        # kafka-python logs each try and everything that it raises; here the error that is raised tells it once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        read_all_header_names()
        arguments = {
            name: value for name, value in msgspec.structs.asdict(self._arguments).items() if value is not None
        }
        try:
            client: Any = kind(
                bootstrap_servers=[broker.strip() for broker in self.brokers.split(",")],
                client_id="tastewave-offline",
                bootstrap_timeout_ms=int(_BOOTSTRAP_TIMEOUT_S * 1000),
                **arguments,
                **options,
            )
        except (KafkaError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise self._unusable(error) from error
        with contextlib.closing(client):
            try:
                yield client
            except UnsupportedCodecError as error:
                raise DumpFailed(
                    f"the records are compressed in a way that cannot be read here ({error}); install all packages of "
                    "deploy/locks/offline.txt, and run this again"
                ) from error
            except CorruptRecordError as error:
                raise DumpFailed(
                    f"a batch on Kafka is damaged ({error}); have Kafka's replicas checked, or dump the other "
                    "partitions with --partition"
                ) from error
            except KafkaError as error:
                raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DumpFailed:
        why = " ".join(self._arguments.redacted(str(error)).split()) or type(error).__name__
        return DumpFailed(
            f"Kafka at {self.brokers} cannot be used ({why}); check that it runs, --brokers and --client-config"
        )


class Offsets:
    """The offsets of partitions at the moment when a dump starts.

    Attributes:
        begins: the first offset that Kafka still holds, by partition.
        ends: the offset after the last one, by partition.
    """

    def __init__(self, consumer: KafkaConsumer, places: Sequence[TopicPartition]) -> None:
        self._consumer: Any = consumer
        self._timeout_ms = int(_ANSWER_TIMEOUT_S * 1000)
        self.begins: dict[TopicPartition, int] = self._consumer.beginning_offsets(places, timeout_ms=self._timeout_ms)
        self.ends: dict[TopicPartition, int] = self._consumer.end_offsets(places, timeout_ms=self._timeout_ms)

    def at(self, time_ms: int) -> dict[TopicPartition, int]:
        """By partition, the offset of the first record that Kafka dates so or later; the end where there is none."""
        records = self._consumer.offsets_for_times(dict.fromkeys(self.ends, time_ms), timeout_ms=self._timeout_ms)
        return {place: records[place].offset if records[place] else end for place, end in self.ends.items()}


class PartitionReader:
    """Reads a partition from an offset on, as offline.interactions.dump_parquet.Source says.

    Attributes:
        dropped: offsets that retention took away before they were read.
    """

    def __init__(self, consumer: Any, place: TopicPartition, first: int) -> None:
        self._consumer, self._place, self._position = consumer, place, first
        self.dropped: list[Span] = []
        consumer.assign([place])
        consumer.seek(place, first)

    def read(self, most: int) -> tuple[Iterable[Record], int]:
        """Up to `most` further records, and the offset after what was read.

        Raises:
            KafkaTimeoutError: nothing came for 30 seconds.
            DumpFailed: the records that were to come are lost.
        """
        deadline, before = time.monotonic() + _READ_TIMEOUT_S, self._position
        while time.monotonic() < deadline:
            try:
                records = self._consumer.poll(timeout_ms=500, max_records=most).get(self._place, [])
            except OffsetOutOfRangeError:
                records = []
                self._skip_dropped()
            else:
                self._position = self._consumer.position(self._place) or 0
            if self._position > before:
                return records, self._position
        raise KafkaTimeoutError(
            f"nothing came for {_READ_TIMEOUT_S:.0f} s at offset {before} of partition {self._place.partition}"
        )

    def _skip_dropped(self) -> None:
        begin = self._consumer.beginning_offsets([self._place])[self._place]
        if begin <= self._position:
            raise DumpFailed(
                f"Kafka has lost the records of {self._place.topic} from offset {self._position} of partition "
                f"{self._place.partition} on while they were read: the topic was made anew, or a broker lost its "
                "disk; run this again"
            )
        self.dropped.append(Span(self._position, begin))
        self._position = begin
        self._consumer.seek(self._place, begin)
