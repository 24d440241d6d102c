"""What topics hold."""

from typing import Any

from kafka import KafkaConsumer, TopicPartition

from stream.settings import Settings


def read_all(settings: Settings, topic: str) -> list[Any]:
    """All records of a topic, by the time they were sent."""
    consumer = KafkaConsumer(bootstrap_servers=list(settings.kafka.brokers), enable_auto_commit=False)
    name = settings.topics.named(topic)
    partitions = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    records = []
    while any(consumer.position(place) < end for place, end in ends.items()):
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    return sorted(records, key=lambda record: (record.timestamp, record.partition, record.offset))
