"""The Faust app of a worker, from settings."""

from __future__ import annotations

from typing import Any

from faust import SASLCredentials, SSLCredentials

from stream.broker.faust_driver import BatchApp
from stream.settings import Settings

_RECORDS_PER_FETCH = 32
_FETCHES_BUFFERED = 2
_DAY_S = 86_400.0
# A hung broker costs up to three of it, a request and two new connections, before another one is asked. Joining a
# group takes as long as a rebalance, so it is more than that.
_REQUEST_TIMEOUT_S = 15.0


def tracks_app(settings: Settings, release: str, *, turns: int) -> BatchApp:
    """The Faust app of a worker that has so many tracks in hand; its consumer group carries the release."""
    credentials: Any = None
    context = settings.kafka.ssl_context()
    if settings.kafka.security.startswith("SASL"):
        password = settings.kafka.password.get_secret_value() if settings.kafka.password else None
        credentials = SASLCredentials(
            username=settings.kafka.username,
            password=password,
            mechanism=settings.kafka.sasl_mechanism,
            ssl_context=context,
        )
    elif context:
        credentials = SSLCredentials(context)
    return BatchApp(
        settings.topics.named(f"tastewave.tracks.{release}"),
        broker=[f"kafka://{broker}" for broker in settings.kafka.brokers],
        broker_credentials=credentials,
        broker_commit_interval=1.0,
        broker_session_timeout=10.0,  # how long the partitions of a killed worker wait for another
        broker_heartbeat_interval=2.0,
        broker_rebalance_timeout=12.0,  # how long a worker whose event loop stands still holds up a rebalance
        broker_request_timeout=_REQUEST_TIMEOUT_S,
        broker_max_poll_records=_RECORDS_PER_FETCH,
        broker_max_poll_interval=_DAY_S,  # Redis may be away for long; readiness looks at progress
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_request_timeout=_REQUEST_TIMEOUT_S,
        producer_max_request_size=settings.topics.max_bytes,
        stream_buffer_maxsize=_FETCHES_BUFFERED,
        web_enabled=False,
        turns=turns,
    )
