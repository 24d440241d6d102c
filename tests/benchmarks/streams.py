"""200 clients of /v1/events at once over HTTP: what the server's memory is after they leave, round by round."""

from __future__ import annotations

import selectors
import socket
import time
import urllib.request

import psutil
from kafka import KafkaProducer
from tracks_path import Figures

from models.contract import TRACKS_TAGGED
from models.events import TrackTagged, encode_event

CLIENTS, EVENTS, ROUNDS = 200, 20, 6
_TIMEOUT_S = 60.0


def streams(port: int, process: psutil.Process, *, brokers: str, release: str) -> Figures:
    """Memory of the server before the first round and after each, MB; CPU time of an event for a client, us."""
    producer = KafkaProducer(bootstrap_servers=brokers)
    resident_mb, told_us = [process.memory_info().rss / 1e6], 0.0
    for turn in range(ROUNDS):
        clients = [_following(port) for _ in range(CLIENTS)]
        spent_s = sum(process.cpu_times()[:2])
        for number in range(EVENTS):
            answer = TrackTagged(
                track_id=f"told-{turn}-{number}", release=release, status="tagged", genre="jazz",
                event_time=1_795_653_950_626, event_id="e", tagged_at=time.time_ns() // 1_000_000,
            )  # fmt: skip
            producer.send(TRACKS_TAGGED, key=f"{release}:{answer.track_id}".encode(), value=encode_event(answer))
        producer.flush(_TIMEOUT_S)
        _read_until(clients, f"told-{turn}-{EVENTS - 1}".encode())
        told_us = 1e6 * (sum(process.cpu_times()[:2]) - spent_s) / (EVENTS * CLIENTS)
        for client in clients:
            client.close()
        _until_left(port)
        resident_mb.append(process.memory_info().rss / 1e6)
    producer.close()
    after = ", ".join(f"{one:.1f}" for one in resident_mb[1:])
    print(f"{CLIENTS} clients of events       {told_us:6.0f} us of CPU an event and client   "
          f"{resident_mb[0]:.1f} MB before, {after} after each of {ROUNDS} rounds")  # fmt: skip
    return {"resident_mb": resident_mb, "us_of_cpu_per_event_and_client": told_us}


def _following(port: int) -> socket.socket:
    """A connection on which the stream has begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    begun = b""
    while b": events of the live release" not in begun:
        begun += _received(client)
    return client


def _read_until(clients: list[socket.socket], last: bytes) -> None:
    """Read all streams until each has told of a track."""
    with selectors.DefaultSelector() as reading:
        for client in clients:
            reading.register(client, selectors.EVENT_READ, bytearray())
        while reading.get_map():
            ready = reading.select(_TIMEOUT_S)
            if not ready:
                raise RuntimeError(f"{len(reading.get_map())} of the streams tell nothing any more")
            for key, _ in ready:
                key.data.extend(_received(key.fileobj))  # type: ignore[arg-type]
                if last in key.data:
                    reading.unregister(key.fileobj)


def _received(client: socket.socket) -> bytes:
    if some := client.recv(1 << 16):
        return some
    raise RuntimeError("the server has ended a stream")


def _until_left(port: int) -> None:
    """Wait until the server knows that the clients are gone."""
    deadline = time.monotonic() + _TIMEOUT_S
    while b"\ntastewave_event_streams 0.0" not in _metrics(port):
        if time.monotonic() > deadline:
            raise RuntimeError("the server still counts streams of clients that have left")
        time.sleep(0.2)


def _metrics(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S) as answer:
        return answer.read()
