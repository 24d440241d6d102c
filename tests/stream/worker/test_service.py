"""The last sentence of a worker that gave up."""

import pytest
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaTimeoutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

from stream.settings import load_settings
from stream.worker.service import _crashed


@pytest.mark.parametrize(
    ("reason", "helps"),
    [
        (UnsupportedCodecError("lz4"), "deploy/locks/worker.txt"),
        (CorruptRecordException("Invalid CRC - uploads/3"), "a restart meets the same records"),
        (TopicAuthorizationFailedError("uploads"), "join the groups prod.tastewave.*"),
        (GroupAuthorizationFailedError("prod"), "join the groups prod.tastewave.*"),
        (SaslAuthenticationFailed("no"), "join the groups prod.tastewave.*"),
        (KafkaTimeoutError("late"), "nothing is lost; if the next start ends the same way"),
        (RuntimeError("a fault of ours"), "nothing is lost; if the next start ends the same way"),
        (None, "nothing is lost"),
    ],
)
def test_a_worker_that_gave_up_says_what_helps_for_the_reason(reason: Exception | None, helps: str) -> None:
    said = str(_crashed(reason, load_settings(topic_prefix="prod.")))
    assert said.startswith(f"the consumer gave up ({reason!r}); ")
    assert helps in said
    assert "\n" not in said


def test_it_names_no_password() -> None:
    settings = load_settings(kafka_security="SASL_PLAINTEXT", kafka_username="worker", kafka_password="hunter2secret")
    assert "hunter2secret" not in str(_crashed(SaslAuthenticationFailed("hunter2secret"), settings))
