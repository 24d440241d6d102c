"""Workers that die, hang and share: after each fault the end is that of an undisturbed run."""

import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from tracks_platform import Platform, write_catalogue

pytestmark = pytest.mark.servers
KILLS = 20


@contextmanager
def uploading(platform: Platform, uris: Sequence[str], *, every_s: float) -> Iterator[None]:
    """Upload in turn, a quarter of it for tracks that were uploaded before, until the block ends."""
    stop, chance = threading.Event(), random.Random(0)

    def produce() -> None:
        number = 0
        while not stop.wait(every_s):
            track = number if chance.random() < 0.75 else chance.randrange(number + 1)
            platform.upload(uris[number % len(uris)], track_id=f"t{track}", title=str(number))
            number += 1

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        yield
    finally:
        stop.set()
        producer.join()


def test_a_worker_killed_twenty_times_at_random_moments_ends_like_one_that_was_not(
    platform: Platform, undisturbed: Platform
) -> None:
    chance = random.Random(1)
    with uploading(platform, write_catalogue(platform.folder), every_s=0.05):
        for _ in range(KILLS):
            worker = platform.start_worker()
            threading.Event().wait(chance.uniform(0.5, 6.0))
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
    platform.start_worker()
    platform.assert_ended_like(undisturbed)
