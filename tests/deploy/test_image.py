"""The steps of the Dockerfile, as far as a machine without a container engine can run them.

Each COPY copies from the context that .dockerignore leaves, each RUN runs in a new environment of Python in the place
of the base image. Then the sources go, and the command must work without them, as it does in the image.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
# An image keeps no cache, compiles once for all starts, and has one Python. Here the first two cost a minute, and the
# last would install into the machine's own.
NOT_HERE = ("--no-cache-dir", "--no-cache", "--compile-bytecode", "--system")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name, and the rest of the line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def is_ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a file out of the context: the last of its lines that matches counts."""
    ignored = False
    for line in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split():
        pattern = line.removeprefix("!")
        anywhere = pattern.startswith("**/")
        places = path.parts if anywhere else [str(place) for place in (path, *path.parents)][:-1]
        if any(fnmatch(place, pattern.removeprefix("**/")) for place in places):
            ignored = not line.startswith("!")
    return ignored


def copy(source: Path, target: Path) -> None:
    """As COPY does: a file into the folder, or what a folder has in it."""
    files = [source] if source.is_file() else [file for file in source.rglob("*") if file.is_file()]
    kept = [file for file in files if not is_ignored(file.relative_to(ROOT))]
    assert kept, f"the context has nothing of {source}"
    for file in kept:
        copied = target / (file.name if source.is_file() else file.relative_to(source))
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_steps_of_the_dockerfile_make_a_command_that_needs_no_sources(tmp_path: Path) -> None:
    image, app = tmp_path / "image", tmp_path / "app"
    run([sys.executable, "-m", "venv", str(image)])
    useradd = image / "bin/useradd"
    useradd.write_text('#!/bin/sh\necho "$@" > "$0.called"\n')  # the real one would change this machine
    useradd.chmod(0o755)
    # Whatever a step says, it installs nothing outside the environment: uv takes VIRTUAL_ENV, and pip needs one.
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("TASTEWAVE_", "UV_SYSTEM"))}
    environment |= {
        "PATH": f"{image}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(image),
        "PIP_REQUIRE_VIRTUALENV": "1",
    }

    steps = instructions()
    assert {name for name, _ in steps} == {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    for name, rest in steps:
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, app / target)
        elif name == "RUN":
            words = [word for word in rest.split() if word not in NOT_HERE]
            run(["sh", "-c", " ".join(words)], cwd=app, env=environment)

    assert "tastewave" in (image / "bin/useradd.called").read_text().split()
    assert not list(app.rglob("__pycache__/*.pyc"))
    shutil.rmtree(app)
    said = dict(steps)
    (entry,), command = json.loads(said["ENTRYPOINT"]), json.loads(said["CMD"])
    assert command == ["worker", "tracks"]
    assert "Usage: tastewave worker tracks" in run([f"{image}/bin/{entry}", *command, "--help"], cwd=tmp_path)
    assert "musicnn" in run([f"{image}/bin/{entry}", "release", "show"], cwd=tmp_path, env=environment)
