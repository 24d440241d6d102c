"""Where the HTTP API may listen."""

import socket

import pytest

from models.errors import SettingsError
from stream.serve.server import run_server
from stream.settings import load_settings

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "api.example"])
def test_another_address_than_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(SettingsError, match=f"serve users at {host} to everybody .*TASTEWAVE_SERVE_TOKEN"):
        run_server(load_settings(serve_host=host))


@pytest.mark.parametrize(
    "allowed",
    [{}, {"host": "localhost"}, {"host": "0.0.0.0", "token": TOKEN}, {"host": "0.0.0.0", "without_token": True}],
)
def test_a_port_that_is_taken_is_said_in_one_sentence(allowed: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load_settings(serve_port=port, **{f"serve_{name}": value for name, value in allowed.items()})
        with pytest.raises(SettingsError, match=f"cannot serve at .*:{port} .*TASTEWAVE_SERVE_PORT"):
            run_server(settings)


@pytest.mark.parametrize("token", ["short", "spaces are no token", "ümläute-are-no-token"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match=r"^TASTEWAVE_SERVE_TOKEN") as refused:
        load_settings(serve_token=token)
    assert token not in str(refused.value)
