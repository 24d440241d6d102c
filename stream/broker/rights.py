"""Which topics the user of a Kafka client may write to, as the broker says without a record being written.

aiokafka knows the requests for metadata up to version 5; the broker tells of rights from version 8 on (KIP-430).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aiokafka.errors import NoError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

_METADATA = 3
_WITH_RIGHTS = 8
_WRITE = 1 << 4  # the bit of AclOperation.WRITE
_NOT_TOLD = -(2**31)

_PARTITION = (
    ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
    ("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32)),
)  # fmt: skip
_TOPIC = (
    ("error_code", Int16), ("topic", String("utf-8")), ("is_internal", Boolean), ("partitions", Array(*_PARTITION)),
    ("operations", Int32),
)  # fmt: skip
_BROKER = (("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))


class _RightsResponse(Response):
    API_KEY = _METADATA  # pyright: ignore - aiokafka declares properties, and its own responses do the same
    API_VERSION = _WITH_RIGHTS  # pyright: ignore
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("brokers", Array(*_BROKER)), ("cluster_id", String("utf-8")),
        ("controller_id", Int32), ("topics", Array(*_TOPIC)), ("cluster_operations", Int32),
    )  # fmt: skip


class _RightsStruct(RequestStruct):
    API_KEY = _METADATA
    API_VERSION = _WITH_RIGHTS
    RESPONSE_TYPE = _RightsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))), ("creates_topics", Boolean), ("with_cluster_operations", Boolean),
        ("with_topic_operations", Boolean),
    )  # fmt: skip


class _RightsRequest(Request[_RightsStruct]):
    API_KEY = _METADATA

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_RightsStruct]) -> _RightsStruct:
        return request_struct_class(self._topics, False, False, True)


async def check_rights(client: Any, node_id: int, topics: Collection[str]) -> None:
    """Raise aiokafka's TopicAuthorizationFailedError, or another KafkaError, where the user may not write to a topic.

    A broker before Kafka 2.3 does not tell; what it refuses is noticed at the first record.

    Args:
        client: an AIOKafkaClient.
        node_id: the broker to ask.
        topics: their names on the broker.
    """
    try:
        response = await client.send(node_id, _RightsRequest(topics))
    except NotImplementedError:
        return
    refused = []
    for error_code, topic, _, _, operations in response.topics:
        if (error := for_code(error_code)) is not NoError:
            raise error(topic)
        if operations != _NOT_TOLD and not operations & _WRITE:
            refused.append(topic)
    if refused:
        raise TopicAuthorizationFailedError(f"this worker's user may not write to {', '.join(sorted(refused))}")
