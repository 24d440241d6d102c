"""Uploads that go on while a test hurts a server or a worker."""

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.platform.tracks import Platform


@contextmanager
def uploading(platform: Platform, uris: Sequence[str], *, every_s: float) -> Iterator[None]:
    """Upload the URIs in turn until the block ends; about every fourth upload replaces an earlier track.

    While Kafka is away an upload waits.
    """
    stop, chance = threading.Event(), random.Random(0)

    def produce() -> None:
        number = 0
        while not stop.wait(every_s):
            track = number if chance.random() < 0.75 else chance.randrange(number + 1)
            platform.upload(uris[number % len(uris)], track_id=f"t{track}", title=str(number))
            number += 1

    with ThreadPoolExecutor(1) as executor:
        producer = executor.submit(produce)
        try:
            yield
        finally:
            stop.set()
        producer.result()
