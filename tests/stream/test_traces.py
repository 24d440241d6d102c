"""When spans are exported, and what it costs a process whose collector is away."""

import socket
import time
from types import SimpleNamespace

import pytest

from stream import traces
from stream.settings import load_settings

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("given", "exported"),
    [
        ({}, False),
        ({ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "", ENDPOINT: "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "zipkin", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "nonsense", ENDPOINT: "http://c:4318"}, True),
    ],
)
def test_spans_are_exported_where_the_variables_of_opentelemetry_say_so(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], exported: bool
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert load_settings().traces.exported is exported


def test_a_collector_that_does_not_answer_holds_up_the_end_for_a_moment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    record = SimpleNamespace(topic="t", partition=0, offset=1, headers=(("traceparent", b"no such thing"), ("x", None)))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with traces.exported(load_settings().traces, service="test"):
            with traces.processing(record), traces.stage("inside"), traces.sending("t") as headers:
                assert [name for name, _ in headers] == ["traceparent"]
            ending = time.monotonic()
        assert 2 < time.monotonic() - ending < 30  # the SDK alone waits for as long
    with traces.processing(record), traces.sending("t") as headers:  # off again
        assert headers == []
