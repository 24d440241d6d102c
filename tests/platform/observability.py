"""What watches a platform: a collector of spans, and a Prometheus that runs the rules of deploy/observability."""

import http.server
import json
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.local.process import Server

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"


class Span(NamedTuple):
    """A span as it came over the wire; ids are hex digits."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: frozenset[str]
    told: dict[str, Any]
    failed: bool


class Collector:
    """Takes spans by OTLP over HTTP on loopback, and serves what it is told as metrics, as a node_exporter would."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics = ""
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self._answer(b"")

            def do_GET(self) -> None:
                self._answer(collector.metrics.encode())

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.address}", "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, name: str, *, trace_id: str = "") -> list[Span]:
        """The spans of a name, of one trace or of all."""
        return [span for span in self.spans if span.name == name and trace_id in ("", span.trace_id)]


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            _values(of.resource.attributes)["service.name"],
            span.name,
            span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            frozenset(f"{link.trace_id.hex()}-{link.span_id.hex()}" for link in span.links),
            _values(span.attributes),
            span.status.code == span.status.STATUS_CODE_ERROR,
        )
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class Prometheus(Server):
    """Prometheus with the configuration and the rules that we give others, but for addresses and intervals.

    Args:
        targets: the addresses of each job.
    """

    name: ClassVar[str] = "prometheus"

    def __init__(self, targets: Mapping[str, list[str]]) -> None:
        super().__init__()
        self._targets = targets

    def _command(self) -> list[str]:
        config = yaml.safe_load((OBSERVABILITY / "prometheus.yaml").read_text())
        assert {job["job_name"] for job in config["scrape_configs"]} == self._targets.keys()
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": self._targets[job["job_name"]]}]
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        shutil.copy(OBSERVABILITY / "alerts.yaml", self.folder)
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        return [
            "prometheus",
            f"--config.file={self.folder}/prometheus.yaml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now. Raises HTTPError where it cannot be evaluated."""
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{asked}", timeout=10) as answer:
            return json.loads(answer.read())["data"]["result"]
