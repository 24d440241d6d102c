"""Workers start fast and stay small: what importing stream and models pulls in."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "tensorflow", "sklearn", "librosa", "matplotlib", "musicnn", "onnx", "polars")


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import stream.worker.tracks",
        "import stream.cli",
        "from models.tagger import Tagger",
        "import stream.commands.upload, stream.commands.tag",
    ],
)
def test_importing_the_worker_and_the_commands_pulls_none_of_the_heavy_libraries(statement: str) -> None:
    modules = imported_by(statement)
    assert len(modules) > 50
    assert modules.isdisjoint(HEAVY)


def test_the_main_process_of_a_worker_has_neither_network_nor_decoders() -> None:
    modules = imported_by(
        "import stream.worker.service, stream.worker.tracks\n"
        "import stream.tracks.handler, stream.audio.fetch, stream.store.tracks"
    )
    assert {"faust", "aiohttp", "redis"} <= modules
    exporting = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf")  # imported where spans are
    assert not [name for name in modules if name.startswith(exporting)]
    assert modules.isdisjoint({"onnxruntime", "av", "scipy", "soundfile", "numpy"})
    assert "kafka" not in modules  # the client of commands: a fifth of a second and 160 modules


def test_a_long_running_process_imports_neither_rich_nor_what_redis_would_measure_with_and_both_can_be_imported_later():
    modules = imported_by(
        "from stream.worker.start import import_quickly\n"
        "import_quickly()\n"
        "import stream.worker.service, stream.worker.tracks, stream.listens.agent\n"
        "before = set(sys.modules)\n"
        "import rich, opentelemetry.sdk.metrics\n"
        "assert not {'rich', 'opentelemetry.sdk.metrics'} & before"
    )
    assert {"faust", "redis", "structlog", "rich", "opentelemetry.sdk.metrics"} <= modules


def test_help_imports_next_to_nothing() -> None:
    modules = imported_by("import stream.cli")
    assert modules.isdisjoint({"faust", "aiokafka", "kafka", "redis", "numpy", "pydantic", "rich", "aiohttp"})


def test_commands_that_speak_to_kafka_load_no_client_of_a_worker() -> None:
    modules = imported_by("import stream.broker.operator, stream.commands.listen, stream.commands.topics")
    assert {"kafka", "redis"} <= modules
    assert modules.isdisjoint({"aiokafka", "faust"})
