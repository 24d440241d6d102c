"""`tastewave dead-letters`: the latest dead letters, newest last."""

from __future__ import annotations

import heapq
import time

import click
import msgspec
from kafka import KafkaConsumer

from models.contract import DEAD_LETTER
from stream.broker.dead_letters import DeadLetter, read_dead_letter
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.commands.tables import age, print_table
from stream.settings import Settings


def show_dead_letters(settings: Settings, *, last: int, as_json: bool = False) -> None:
    """Print the latest dead letters: a table, or a JSON line each with all bytes as text. Raises KafkaUnusable."""
    letters = latest_dead_letters(settings, last=last)
    if as_json:
        for letter in letters:
            texts = {"key": _text(letter.key), "value": _text(letter.value)}
            headers = [(name, _text(value)) for name, value in letter.headers]
            fields = msgspec.structs.asdict(letter) | texts | {"headers": headers}
            click.echo(msgspec.json.encode(fields))
    elif letters:
        now_ms = time.time_ns() // 1_000_000
        print_table(
            ("age", "reason", "key", "message"),
            [
                (age((now_ms - letter.time) / 1000), letter.reason, _text(letter.key) or "-", letter.message)
                for letter in letters
            ],
        )
    else:
        click.echo("No dead letters.")


def latest_dead_letters(settings: Settings, *, last: int) -> list[DeadLetter]:
    """The latest dead letters over all partitions, oldest first. Raises KafkaUnusable."""
    with kafka_client(
        KafkaConsumer, settings.kafka, enable_auto_commit=False, allow_auto_create_topics=False
    ) as consumer:
        partitions = partitions_of(consumer, settings.topics.named(DEAD_LETTER))
        ends = consumer.end_offsets(partitions)
        beginnings = consumer.beginning_offsets(partitions)
        starts = {place: max(beginnings[place], end - last) for place, end in ends.items()}
        letters = map(read_dead_letter, records_between(consumer, starts, ends))
        latest = heapq.nlargest(last, letters, key=lambda letter: letter.time)
    return latest[::-1]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
