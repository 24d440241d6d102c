"""`tastewave dead-letters`: list the latest dead letters, newest last, or redrive them."""

from __future__ import annotations

import datetime
import heapq
import os
import pwd
import time

import click
import msgspec
from kafka import KafkaConsumer

from models.contract import DEAD_LETTER
from models.errors import SettingsError
from stream.broker.dead_letters import DeadLetter, read_dead_letter
from stream.broker.operator import kafka_client, partitions_of, records_between
from stream.broker.redrive import Choice, redrive
from stream.commands.tables import age, print_facts, print_table, progress_bar
from stream.logs import configure_logs
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


def redrive_dead_letters(
    settings: Settings, *, reason: str | None, since: str | None, rate: float, dry_run: bool = False
) -> None:
    """Redrive the letters of a reason and from a time on, and print how many they were.

    Args:
        settings: how to reach Kafka, and how topics are named.
        reason: of the letters; any when None.
        since: their earliest time, as ISO 8601, UTC where it names no zone; from the first on when None.
        rate: the most events a second.
        dry_run: print what would be sent, and send nothing.

    Raises:
        SettingsError: the time cannot be read.
        RedriveFailed: Kafka did not take an event.
        KafkaUnusable: Kafka is away, or a topic is missing.
    """
    choice = Choice(reason=reason, since_ms=_milliseconds(since) if since else 0)
    with progress_bar() as progress:
        configure_logs(settings)  # here, so that its lines go above the bar
        task = progress.add_task("reading dead letters", total=None)
        redriven = redrive(
            settings,
            choice,
            by=_operator(),
            rate=rate,
            dry_run=dry_run,
            on_read=lambda read, total: progress.update(task, completed=read, total=total),
        )
    by_reason = ", ".join(f"{number} {name}" for name, number in redriven.sent.most_common())
    print_facts(
        {
            "events to send again" if dry_run else "events sent again": f"{redriven.sent.total()}"
            + (f" ({by_reason})" if by_reason else ""),
            "further letters of these events": str(redriven.repeated) if redriven.repeated else None,
            "refused, truncated": str(redriven.truncated) if redriven.truncated else None,
            "refused, not of a topic that workers read": str(redriven.foreign) if redriven.foreign else None,
        }
    )


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"--since is no time ({error}); write it as 2026-11-26T13:00") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() * 1000)


def _operator() -> str:
    """Who runs this: the user of the process, since variables such as USER can say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container
        return str(os.getuid())


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
