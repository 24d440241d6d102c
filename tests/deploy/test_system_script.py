"""deploy/local/system.sh: silent when nothing is missing; installs as root, and tells others what to install."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/local/system.sh"
NEEDED = {
    "redis-server": "redis-server", "java": "default-jre-headless", "mvn": "maven", "setpriv": "util-linux",
    "python3": "python3-venv",
}  # fmt: skip
NEEDED_BY_TESTS = {
    "javac": "default-jdk-headless", "go": "golang-go", "node": "nodejs", "npm": "npm", "promtool": "prometheus",
    "chromium": "chromium",
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of fake programs, the only ones on the script's PATH."""
    for name in NEEDED:
        add(tmp_path, name, "exit 0")
    add(tmp_path, "apt-get", 'echo "apt-get $*"')
    add(tmp_path, "id", "echo 0")
    return tmp_path


def add(machine: Path, name: str, body: str) -> None:
    (machine / name).write_text(f"#!{shutil.which('sh')}\n{body}\n")
    (machine / name).chmod(0o755)


def run(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("sh"), SCRIPT, *arguments]
    return subprocess.run(command, env={"PATH": str(machine)}, capture_output=True, text=True, check=False, timeout=30)


def test_nothing_is_done_or_said_where_everything_is_there(machine: Path):
    done = run(machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("program", "package"), NEEDED.items())
def test_root_gets_the_package_of_a_missing_program(machine: Path, program: str, package: str):
    add(machine, program, "exit 1") if program == "python3" else (machine / program).unlink()
    add(machine, "apt-get", f'echo "apt-get $*" >> {machine}/called')
    done = run(machine)
    assert done.returncode == 0
    assert done.stdout == f"Installing {package} ...\n"
    update, install = (machine / "called").read_text().splitlines()
    assert update.startswith("apt-get update")
    assert install.split()[:2] == ["apt-get", "install"]
    assert [word for word in install.split()[2:] if not word.startswith("-")] == [package]


def test_others_are_told_in_one_sentence_what_to_install(machine: Path):
    add(machine, "id", "echo 1000")
    (machine / "java").unlink()
    (machine / "mvn").unlink()
    done = run(machine)
    assert done.returncode == 1
    assert done.stderr == (
        "tastewave needs Redis 7, Java 17, Maven and venv; install what is missing: "
        "sudo apt-get install default-jre-headless maven\n"
    )


def test_python_alone_needs_neither_java_nor_redis(machine: Path):
    for name in ("redis-server", "java", "mvn", "setpriv"):
        (machine / name).unlink()
    done = run(machine, "python")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    add(machine, "python3", "exit 1")
    add(machine, "id", "echo 1000")
    done = run(machine, "python")
    assert done.returncode == 1
    assert done.stderr == "tastewave needs venv; install what is missing: sudo apt-get install python3-venv\n"


def test_what_only_tests_run_is_asked_for_by_tests_alone(machine: Path):
    assert run(machine).returncode == 0
    done = run(machine, "tests")
    assert done.stdout.splitlines()[0] == f"Installing {' '.join(NEEDED_BY_TESTS.values())} ..."
    for name in NEEDED_BY_TESTS:
        add(machine, name, "exit 0")
    assert run(machine, "tests").stdout == ""
