"""A worker ends at SIGTERM, with status 0, at every moment of its start."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import Kafka
from stream.broker.app import batch_app
from stream.settings import load_settings
from stream.worker.service import _run
from tests.integration.test_read_by_all import Seen
from tests.platform.clock import until
from tests.platform.tracks import Platform

pytestmark = pytest.mark.servers
SOON_S = 10.0
# A worker started with this program stands still while it imports the named module.
STANDS_STILL_AT_IMPORT = """
import sys, time
class Finder:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            print("importing", file=sys.stderr, flush=True)
            time.sleep(300)
sys.meta_path.insert(0, Finder)
from stream.cli import main
main()
"""


def assert_ends_at_sigterm(platform: Platform, when: Callable[[], bool]) -> None:
    until(when)
    platform.workers[0].send_signal(signal.SIGTERM)
    asked = time.monotonic()
    assert platform.workers[0].wait(60) == 0
    assert time.monotonic() - asked < SOON_S
    assert "Traceback" not in platform.worker_log()


@pytest.mark.parametrize("module", ["models.release", "faust"])
def test_while_it_imports(platform: Platform, module: str) -> None:
    platform.start_worker(program=(sys.executable, "-c", STANDS_STILL_AT_IMPORT.format(module=module)))
    assert_ends_at_sigterm(platform, lambda: "importing" in platform.worker_log())


@pytest.mark.skipif(
    subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode != 0,
    reason="this machine allows no new process namespace",
)
def test_while_it_imports_as_process_1_which_the_kernel_spares(platform: Platform) -> None:
    program = (sys.executable, "-c", STANDS_STILL_AT_IMPORT.format(module="faust"))
    outer = platform.start_worker(program=("unshare", "--pid", "--fork", "--kill-child", *program))
    until(lambda: "importing" in platform.worker_log())
    (worker,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGTERM)
    assert outer.wait(60) == 0


def test_while_it_downloads_its_release(platform: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        platform.start_worker(release=f"http://127.0.0.1:{silent.getsockname()[1]}/release")
        connection, _ = silent.accept()  # and it never answers
        with connection:
            assert_ends_at_sigterm(platform, lambda: True)


@pytest.mark.parametrize("away", ["kafka", "redis"])
def test_while_it_waits_for_a_server(platform: Platform, away: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = {"kafka": {"kafka_brokers": address}, "redis": {"redis_url": f"redis://{address}/0"}}
        platform.start_worker(**settings[away])
        assert_ends_at_sigterm(platform, lambda: "worker.starting" in platform.worker_log())


@pytest.mark.parametrize("moment", ["its producer connects", "it joins its group"])
async def test_while_the_broker_is_frozen_and(environment: dict[str, str], kafka: Kafka, moment: str) -> None:
    settings = load_settings(
        kafka_brokers=kafka.brokers, topic_prefix=environment["TASTEWAVE_TOPIC_PREFIX"], drain_timeout_s=5.0
    )
    app = batch_app(settings, role="tracks", release="test", records_per_fetch=32, turns=4, on_away=print)
    app.consume(settings.topics.named("records"), Seen(), in_hand=1)
    stopping, frozen = asyncio.Event(), asyncio.Event()
    service, begin = (app.producer, "on_start") if moment == "its producer connects" else (app.consumer, "subscribe")
    go_on = getattr(service, begin)

    async def freeze(*args: object) -> None:
        kafka.pause()
        frozen.set()
        await go_on(*args)

    setattr(service, begin, freeze)
    joining = asyncio.create_task(_run(app, stopping, settings))
    await frozen.wait()
    try:
        stopping.set()
        await asyncio.wait_for(joining, SOON_S)
    finally:
        kafka.resume()
