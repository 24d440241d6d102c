"""Logs: JSON lines, and a bound on what other people's code repeats."""

import json
import logging
from types import SimpleNamespace

import pytest
import structlog

from stream.logs import configure_logs
from stream.settings import load_settings


@pytest.fixture(autouse=True)
def _root_logger() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(captured: str) -> list[dict]:
    return [json.loads(line) for line in captured.splitlines()]


def test_each_line_is_json_with_its_fields_and_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings(log_format="json"))
    log = structlog.get_logger("stream.test")
    log.info("track.tagged", track_id="ü1", ms=3)
    try:
        raise KeyError("oh")
    except KeyError:
        log.exception("record.unexpected_error")
    first, second = lines(capfd.readouterr().err)
    assert (first["event"], first["track_id"], first["ms"], first["level"]) == ("track.tagged", "ü1", 3, "info")
    assert first["timestamp"].endswith("Z")
    assert second["exception"][0]["exc_type"] == "KeyError"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(capfd: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logs(load_settings(log_format=log_format))
    uri = "http" + "s://user:c4nary@host/?signature=c4nary"
    try:
        raise KeyError(len(uri))
    except KeyError:
        structlog.get_logger("stream.test").exception("record.unexpected_error")
    text = capfd.readouterr().err
    assert "KeyError" in text
    assert "c4nary@" not in text.replace('uri = "http" + "s://user:c4nary@host/?signature=c4nary"', "")


def test_a_line_that_is_repeated_is_held_back_for_a_minute_and_counted_and_ours_later_than_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("stream.logs.time", SimpleNamespace(monotonic=lambda: clock[0]))
    configure_logs(load_settings(log_format="json"))
    ours = structlog.get_logger("stream.tracks.handler")

    def minute(*, times: int) -> tuple[list[dict], list[dict]]:
        for number in range(times):
            logging.getLogger("aiokafka.conn").error("no broker %d", number)
            ours.warning("track.failed", number=number)
        written = lines(capfd.readouterr().err)
        return [line for line in written if line["event"].startswith("no broker")], [
            line for line in written if line["event"] == "track.failed"
        ]

    assert [len(those) for those in minute(times=1000)] == [5, 100]
    clock[0] += 59.0
    assert minute(times=1) == ([], [])
    clock[0] += 1.0
    (theirs,), (our,) = minute(times=1)
    assert (theirs["event"], theirs["held_back"]) == ("no broker 0", 996)
    assert (our["number"], our["held_back"]) == (0, 901)
    assert "held_back" not in minute(times=1)[1][0]


def test_the_chatter_of_libraries_below_warning_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings(log_format="json"))
    logging.getLogger("faust.app").info("starting")
    logging.getLogger("mode.services").info("starting")
    assert capfd.readouterr().err == ""
