"""A connection to the HTTP API that does not wait for slow clients without end.

uvicorn waits as long as a client likes for the rest of a request, and for it to take an answer. The methods that are
overridden here are those of asyncio's protocols and of httptools' parser.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle, Transport
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEAD_BYTES = 32_768
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
STREAMS = "/v1/events"
"""Path of the answers without an end."""
UPLOADS = "/v1/uploads"
"""Path of the requests that may take long to arrive."""
UPLOAD_BYTES_S = 16_384
"""The slowest upload, in bytes a second."""


def connection_of(timeout_s: float) -> type[HttpToolsProtocol]:
    """The class of connections whose clients get so many seconds to send a request, and to take an answer.

    An upload may take longer, as long as it comes fast enough.
    """

    class Connection(HttpToolsProtocol):
        _arriving = False
        _head_bytes = 0
        _came_bytes = 0
        _arrives: TimerHandle | None = None
        _leaves: TimerHandle | None = None

        def connection_made(self, transport: BaseTransport) -> None:
            super().connection_made(cast(Transport, transport))
            self._arrives = self.loop.call_later(timeout_s, self._too_slow)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_arrival()
            if self._leaves:
                self._leaves.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._came_bytes += len(data)
            if not self._arriving:
                self._forget_arrival()
            elif self._arrives is None:
                self._arrives = self.loop.call_later(timeout_s, self._too_slow)
            if self._head_bytes >= 0 and self._arriving:
                self._head_bytes += len(data)
                if self._head_bytes > _MOST_HEAD_BYTES:
                    self._refuse(_TOO_LARGE)

        def on_message_begin(self) -> None:
            self._arriving, self._head_bytes = True, 0
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head_bytes = -1
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._arriving = False
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._leaves = self.loop.call_later(timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._leaves:
                self._leaves.cancel()
                self._leaves = None

        def shutdown(self) -> None:
            super().shutdown()
            if self.scope and self.scope.get("path") == STREAMS:
                self.transport.close()

        def _too_slow(self) -> None:
            if self._goes_on():
                self._came_bytes = 0
                self._arrives = self.loop.call_later(timeout_s, self._too_slow)
            else:
                self._refuse(_TIMEOUT)

        def _goes_on(self) -> bool:
            """Whether it is an upload that comes fast enough, or as fast as it is taken."""
            if not self._arriving or self._head_bytes >= 0 or self.scope.get("path") != UPLOADS:
                return False
            if self.cycle is None or self.cycle.response_complete:
                return False
            return self.flow.read_paused or self._came_bytes >= UPLOAD_BYTES_S * timeout_s

        def _refuse(self, answer: bytes) -> None:
            if not self.transport.is_closing():
                if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                    self.transport.write(answer)
                self.transport.close()

        def _forget_arrival(self) -> None:
            if self._arrives:
                self._arrives.cancel()
                self._arrives = None

    return Connection
