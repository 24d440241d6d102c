"""Logs: JSON lines, and a bound on what other people's code repeats."""

import json
import logging

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


def test_a_line_that_others_repeat_is_held_back_and_ours_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings(log_format="json"))
    for number in range(1000):
        logging.getLogger("aiokafka.conn").error("no broker %d", number)
    ours = structlog.get_logger("stream.tracks")
    for number in range(100):
        ours.warning("track.failed", number=number)
    found = lines(capfd.readouterr().err)
    assert sum(line["event"].startswith("no broker") for line in found) == 5
    assert sum(line["event"] == "track.failed" for line in found) == 100


def test_the_chatter_of_libraries_below_warning_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(load_settings(log_format="json"))
    logging.getLogger("faust.app").info("starting")
    logging.getLogger("mode.services").info("starting")
    assert capfd.readouterr().err == ""
