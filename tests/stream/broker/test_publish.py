"""Which errors of Kafka are its own trouble."""

import aiokafka.errors as kafka
import pytest
from faust.exceptions import ProducerSendError

from stream.broker.publish import is_kafka_away, kafka_advice


def wrapped(error: Exception) -> ProducerSendError:
    """As Faust raises it."""
    try:
        raise ProducerSendError("sending failed") from error
    except ProducerSendError as sent:
        return sent


@pytest.mark.parametrize(
    "error",
    [
        *(kafka.KafkaTimeoutError(), kafka.KafkaConnectionError(), kafka.NotEnoughReplicasError()),
        *(kafka.TopicAuthorizationFailedError("t"), kafka.GroupAuthorizationFailedError("g")),
        *(kafka.ClusterAuthorizationFailedError(), kafka.SaslAuthenticationFailed(), kafka.UnknownError()),
        *(kafka.PolicyViolationError(), kafka.KafkaStorageError(), kafka.UnknownTopicOrPartitionError()),
    ],
)
def test_what_a_broker_refuses_is_its_own_trouble(error: Exception) -> None:
    assert is_kafka_away(error)
    assert is_kafka_away(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [
        *(kafka.MessageSizeTooLargeError(), kafka.RecordListTooLargeError(), kafka.RecordTooLargeError()),
        *(kafka.IllegalStateError(), KeyError("a fault of ours"), ConnectionError("of somebody else")),
    ],
)
def test_what_is_too_large_and_what_is_no_error_of_kafka_is_not(error: Exception) -> None:
    assert not is_kafka_away(error)
    assert not is_kafka_away(wrapped(error))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (kafka.TopicAuthorizationFailedError("t"), "deploy/docs/production.md"),
        (kafka.SaslAuthenticationFailed(), "TASTEWAVE_KAFKA_PASSWORD"),
        (kafka.UnknownTopicOrPartitionError(), "tastewave topics create"),
        (kafka.KafkaConnectionError(), "TASTEWAVE_KAFKA_SECURITY"),
        (kafka.NotEnoughReplicasError(), ""),
        (KeyError("a fault of ours"), ""),
    ],
)
def test_what_to_do_is_said_where_the_text_does_not_say_it(error: Exception, advice: str) -> None:
    assert (advice in kafka_advice(error)) if advice else not kafka_advice(error)
    assert kafka_advice(wrapped(error)) == kafka_advice(error)
