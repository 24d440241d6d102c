"""The compose file and the image: valid, reachable from this machine alone, and true to the code."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import click
import jsonschema
import pytest
import yaml

from stream.cli import cli
from stream.settings import SECTIONS, WorkerSettings

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_the_file_follows_the_compose_specification(compose):
    # Only its files are read: importing check_jsonschema needs a later click than Faust allows.
    package = Path(find_spec("check_jsonschema").submodule_search_locations[0])
    schema = json.loads((package / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose | {"services": {"kafka": {"imgae": "apache/kafka"}}}, schema)


def test_every_port_is_bound_to_this_machine_alone(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_prometheus_of_its_network_reaches_the_health_port_and_this_machine_does_not(compose):
    for role in ("tracks", "listens"):
        worker = compose["services"][role]
        assert worker["environment"]["TASTEWAVE_HEALTH_HOST"] == "0.0.0.0"
        assert worker["expose"] == [str(WorkerSettings.model_fields["health_port"].default)]
        assert "ports" not in worker
        assert not {"network_mode", "networks"} & set(worker)


def test_images_from_elsewhere_have_a_version(compose):
    images = [service["image"] for service in compose["services"].values() if "build" not in service]
    assert len(images) == 2
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", image) for image in images)


def test_kafka_is_the_version_that_the_tests_run_on(compose):
    pom = (DEPLOY / "local/pom.xml").read_text()
    tested = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", pom)[1]
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{tested}"


def test_every_setting_and_command_exists(compose):
    variables = {variable for section in SECTIONS.values() for variable in section.variables().values()}
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert set(ours) == {"topics", "tracks", "api", "listens"}
    assert {name for name, service in ours.items() if "profiles" in service} == {"listens"}  # it needs another release
    for service in ours.values():
        assert set(service["environment"]) <= variables
        command = cli
        for word in service["command"]:
            command = command.get_command(click.Context(command), word)
            assert command is not None, word


def test_everything_that_is_copied_or_mounted_exists(compose):
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE) for source in line.split()]
    assert len(copied) >= 7
    assert [source for source in copied if not (DEPLOY.parent / source).exists()] == []
    assert (DEPLOY / "local/redis.conf").is_file()
    assert "./local/redis.conf:/etc/redis.conf:ro" in compose["services"]["redis"]["volumes"]


def test_the_worker_is_not_root_in_its_image():
    users = re.findall(r"^USER (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["tastewave"]
