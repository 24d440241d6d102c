"""What /metrics tells (Prometheus). One registry, so that tests and commands see only what is ours.

A name is `tastewave_`, what is measured, and its base unit (seconds, bytes, ratio) or what is counted, in the plural;
a counter ends in `_total`. A value of 1 or 0 is named by the state that 1 stands for.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

REGISTRY = CollectorRegistry()

EVENTS = Counter(
    "tastewave_events",
    "Events done, by outcome and reason. Of uploads: tagged, abstained, cached, failed, refused, forgotten. Of "
    "corrections: corrected, failed, refused. Of listens: taken, excluded, outdated, forgotten, failed, refused.",
    ("agent", "outcome", "reason"), registry=REGISTRY,
)  # fmt: skip
STAGE_SECONDS = Histogram(
    "tastewave_stage_seconds",
    "Time of a stage. Of an upload: fetch, queue, decode, log_mel, network, encoder, genre, "
    "store. Of a batch of listens: "
    "events, and of a part of its users: histories, embed, users, publish.",
    ("stage",), registry=REGISTRY, buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
EVENT_TO_CACHE_SECONDS = Histogram(
    "tastewave_event_to_cache_seconds", "From event_time to the answer in Redis.", registry=REGISTRY,
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
)  # fmt: skip
LISTEN_TO_EMBEDDING_SECONDS = Histogram(
    "tastewave_listen_to_embedding_seconds",
    "From a user's newest listen in a batch to the refreshed embedding in Redis and on Kafka.",
    registry=REGISTRY, buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
)  # fmt: skip
TRACKS_TAGGED = Counter(
    "tastewave_tracks_tagged", "Uploads answered with a genre, by that genre.", ("release", "genre"), registry=REGISTRY
)
TRAINING_GENRES = Gauge(
    "tastewave_training_genre_ratio",
    "Share of a genre among the tracks that the genre head was trained on; of a head of one genre a track.",
    ("release", "genre"), registry=REGISTRY,
)  # fmt: skip
USERS_REFRESHED = Counter(
    "tastewave_users_refreshed", "Users embedded anew, by what they were embedded from (history, global).",
    ("source",), registry=REGISTRY,
)  # fmt: skip
IN_HAND = Gauge(
    "tastewave_in_hand_records", "Records, or batches of listens, that are being handled.", registry=REGISTRY
)
LAG = Gauge(
    "tastewave_lag_records",
    "Records of a partition that are not answered yet.",
    ("topic", "partition"),
    registry=REGISTRY,
)
STALLED = Gauge(
    "tastewave_stalled_partitions", "Partitions with lag that have not moved for TASTEWAVE_STALL_S.", registry=REGISTRY
)
GUARD = Gauge(
    "tastewave_guard", "1 where a guard around the pool processes (rlimit, landlock, seccomp) holds, 0 where not.",
    ("guard",), registry=REGISTRY,
)  # fmt: skip
LANDLOCK_ABI = Gauge(
    "tastewave_landlock_abi", "Version of landlock: 0 none, 1 guards files, 4 TCP too, 6 signals too.",
    registry=REGISTRY,
)  # fmt: skip
LOST_AUDIO_SECONDS = Counter(
    "tastewave_lost_audio_seconds", "Audio that was damaged where a track was heard, and was skipped.",
    registry=REGISTRY,
)  # fmt: skip
POOL_RESTARTS = Counter("tastewave_pool_restarts", "Pool processes lost and replaced.", registry=REGISTRY)
WAITING = Gauge(
    "tastewave_waiting", "1 while the worker waits for a server that is away.", ("server",), registry=REGISTRY
)
SERVER_ERRORS = Counter(
    "tastewave_server_errors",
    "Errors that made a record wait or a check fail, by the server that is away. A check writes what an answer writes.",
    ("server",), registry=REGISTRY,
)  # fmt: skip
REDIS_LOST_WRITES = Counter(
    "tastewave_redis_lost_writes", "How often Redis had lost acknowledged writes; see the runbook on rewinding.",
    registry=REGISTRY,
)  # fmt: skip
LOG_CUTS = Counter(
    "tastewave_kafka_log_cuts", "Times that a partition ended before what had been read: Kafka lost records.",
    registry=REGISTRY,
)  # fmt: skip
LOST_TO_RETENTION = Counter(
    "tastewave_lost_to_retention_records", "Records that Kafka dropped before a worker had read them.",
    registry=REGISTRY,
)  # fmt: skip
HTTP_REQUEST_SECONDS = Histogram(
    "tastewave_http_request_seconds", "Time of a request of the HTTP API, by its route; of a stream until it ends.",
    ("method", "route", "status"), registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
EVENT_STREAMS = Gauge(
    "tastewave_event_streams", "Clients that read the event stream of the HTTP API.", registry=REGISTRY
)
FEED_LAG = Gauge(
    "tastewave_feed_lag_records", "Records that the HTTP API has not read yet of the live release.", registry=REGISTRY
)
FEED_TRACKS = Gauge(
    "tastewave_feed_tracks", "Tracks with an embedding that the HTTP API holds to be searched.", registry=REGISTRY
)
FEED_USERS = Gauge("tastewave_feed_users", "Users that the HTTP API holds to be searched.", registry=REGISTRY)
FEED_MEMORY = Gauge(
    "tastewave_feed_memory_bytes", "Memory of what the HTTP API holds to be searched.", registry=REGISTRY
)
RELEASE = Info("tastewave_release", "The release this worker is pinned to.", registry=REGISTRY)
RELEASE_CREATED = Gauge(
    "tastewave_release_created_timestamp_seconds", "When the release that this worker is pinned to was built.",
    ("release",), registry=REGISTRY,
)  # fmt: skip
