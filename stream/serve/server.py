"""`tastewave serve`: the process of the HTTP API."""

from __future__ import annotations

import asyncio
import gc
import socket

import structlog
import uvicorn
import uvloop

from models.errors import SettingsError
from stream import traces
from stream.logs import configure_logs
from stream.reader.reader import AnswerReader
from stream.serve.connection import connection_of
from stream.serve.feed import Feed
from stream.serve.hosts import is_loopback
from stream.serve.site import Site
from stream.serve.uploads import Uploads, uploads_of
from stream.settings import Settings
from stream.store.client import async_client

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_KEEP_ALIVE_S = 75


def run_server(settings: Settings) -> None:
    """Answer until SIGTERM or SIGINT.

    Raises:
        SettingsError: there is no token, and the address is not loopback or changes are allowed; it cannot be listened
            on; uploads cannot be kept in their folder; the Redis URL cannot be read, or TLS cannot be set up.
    """
    _check_token(settings)
    uploads = uploads_of(settings)
    configure_logs(settings)
    with (
        traces.exported(settings.traces, service="tastewave-serve"),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, uploads))


async def _serve(settings: Settings, uploads: Uploads | None) -> None:
    client = async_client(settings.redis)
    try:
        reader = AnswerReader(
            client,
            key_prefix=settings.redis.key_prefix,
            cluster=settings.redis.cluster,
            timeout_s=settings.serve.timeout_s,
        )
        site = Site(settings, reader=reader, feed=Feed(settings, redis=client), uploads=uploads)
        config = uvicorn.Config(
            site,
            http=connection_of(settings.serve.timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=settings.serve.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(settings.serve.timeout_s) + 1,
        )
        gc.freeze()  # to look at 130,000 objects that stay takes 40 to 80 ms, in which nobody is answered
        gc.enable()  # import_quickly turned it off
        with _listening(settings) as listening:
            host, port = listening.getsockname()[:2]
            log.info("serve.listening", address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
            await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        await client.aclose()


def _listening(settings: Settings) -> socket.socket:
    host, port = settings.serve.host, settings.serve.port
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot serve at {host}:{port} ({error.strerror}); set TASTEWAVE_SERVE_HOST and TASTEWAVE_SERVE_PORT, "
            "0 takes a free one"
        ) from error


def _check_token(settings: Settings) -> None:
    """User vectors are personal data: nobody else may read them by accident, nor change anything."""
    serve = settings.serve
    for allowed, variable in ((serve.redrive, "REDRIVE"), (serve.corrections, "CORRECTIONS")):
        if allowed and not serve.token:
            raise SettingsError(
                f"TASTEWAVE_SERVE_{variable} lets requests change something, and needs TASTEWAVE_SERVE_TOKEN, which "
                "they must bring; set it"
            )
    if serve.token or serve.without_token or is_loopback(serve.host):
        return
    raise SettingsError(
        f"the API would serve users at {serve.host} to everybody who reaches it; set TASTEWAVE_SERVE_TOKEN, or "
        "TASTEWAVE_SERVE_WITHOUT_TOKEN=true where a gateway guards it"
    )
