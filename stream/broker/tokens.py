"""Tokens for SASL OAUTHBEARER, as the two Kafka clients ask for them.

The function that TASTEWAVE_KAFKA_TOKEN_PROVIDER names is called for each new connection. Where it raises, the client
raises an error of Kafka: a worker waits and tries again, and a command says so. Each client is imported only where it
is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from stream.settings import KafkaSettings


def kafka_python_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """Connection arguments of kafka-python.

    Raises SettingsError as client_arguments and token_function do, and KafkaConnectionError where the function raises.
    """
    arguments = settings.client_arguments()
    if function := settings.token_function():
        from kafka.errors import KafkaConnectionError
        from kafka.net.sasl import oauth  # pyright: ignore[reportMissingImports] - its stubs are of an older version

        class Tokens(oauth.AbstractTokenProvider):
            def token(self) -> Any:
                return _call(function, KafkaConnectionError)

        arguments["sasl_oauth_token_provider"] = Tokens()
        _call(function, KafkaConnectionError)  # where it raises, kafka-python would only say that it cannot connect
    return arguments


def aiokafka_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """Connection arguments of aiokafka. Raises SettingsError as client_arguments and token_function do."""
    arguments = settings.client_arguments()
    if function := settings.token_function():
        from aiokafka.abc import AbstractTokenProvider
        from aiokafka.errors import KafkaConnectionError

        class Tokens(AbstractTokenProvider):
            async def token(self) -> Any:
                return await asyncio.to_thread(_call, function, KafkaConnectionError)

        arguments["sasl_oauth_token_provider"] = Tokens()
    return arguments


def _call(function: Callable[[], str], kind: type[Exception]) -> str:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - whatever a stranger's function raises
        # Not its text, which may hold a secret that no setting knows.
        raise kind(f"the token provider raised {type(error).__name__}; call it by itself to see more") from None
