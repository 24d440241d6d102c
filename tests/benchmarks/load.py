"""Requests over HTTP at a rate, from one process that takes little CPU time itself.

asyncio takes as long for a request as the server does, so that it would measure itself where both share a machine.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections import deque
from collections.abc import Sequence


def send_at(port: int, requests: Sequence[bytes], *, connections: int, rate: float = math.inf) -> list[float]:
    """Send so many requests a second, whether or not those before were answered; returns how long each took, s.

    It took so long since it was due: a request waits where all connections wait for an answer.
    """
    sockets = {made.fileno(): made for made in (_connected(port) for _ in range(connections))}
    free, waiting, due_of = deque(sockets), deque[float](), dict[int, float]()
    received, took = dict.fromkeys(sockets, b""), list[float]()
    begin, number, sent = time.perf_counter() + 0.01, 0, 0
    while len(took) < len(requests):
        now = time.perf_counter()
        while number < len(requests) and begin + number / rate <= now:
            waiting.append(begin + number / rate)
            number += 1
        while waiting and free:
            place = free.popleft()  # the server ends a connection that sends nothing for some seconds
            sockets[place].sendall(requests[sent])
            due_of[place] = waiting.popleft()
            sent += 1
        wait_s = begin + number / rate - time.perf_counter() if number < len(requests) else 30.0
        ready, _, _ = select.select(list(due_of), (), (), max(0.0, wait_s))
        for place in ready:
            received[place] += sockets[place].recv(1 << 20)
            if _is_whole(received[place]):
                took.append(time.perf_counter() - due_of.pop(place))
                received[place] = b""
                free.append(place)
    for one in sockets.values():
        one.close()
    return took


def _connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _is_whole(answer: bytes) -> bool:
    """Whether all of an answer is there. Raises RuntimeError where it is none of status 200, or the server is gone."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end and answer:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server answers {head[:200]!r}")
    return len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
