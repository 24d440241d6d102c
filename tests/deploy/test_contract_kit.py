"""Readers in four languages, and the checker, on the golden keys of the contract."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from models.contract import taggram_key, track_answer, track_fields, track_key, user_answer, user_fields, user_key
from stream.cli import cli
from tests.conftest import Servers

ROOT = Path(__file__).parents[2]
CLIENTS, KIT = ROOT / "deploy/clients", ROOT / "deploy/contract"
EXPECTED = [json.loads(line) for line in (KIT / "expected.jsonl").read_text().splitlines()]
RELEASE = "0123456789ab"


def load_golden(url: str) -> None:
    """The command of deploy/contract/README.md."""
    with (KIT / "golden.redis").open() as commands:
        done = subprocess.run(["redis-cli", "-u", url], stdin=commands, capture_output=True, text=True, check=True)
    assert "ERR" not in done.stdout


@pytest.fixture
def golden(servers: Servers, environment: dict[str, str]) -> str:
    """host:port of a Redis with the golden keys."""
    load_golden(servers.redis.url)
    return servers.redis.url.removeprefix("redis://").removesuffix("/0")


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_python(folder: Path) -> list[str]:
    return [str(ROOT / ".venv/bin/python"), str(CLIENTS / "python/example.py")]


def build_go(folder: Path) -> list[str]:
    # Without optimisation, C and what debuggers need: on a fresh machine Go compiles its whole library, in little
    # more than half of the time.
    bare = ["env", "CGO_ENABLED=0", "go", "build", "-gcflags=all=-N -l -dwarf=0", "-ldflags=-s -w"]
    _run(*bare, "-o", folder / "reader", ".", cwd=CLIENTS / "go")
    return [str(folder / "reader")]


def build_java(folder: Path) -> list[str]:
    jars = _kept("java", CLIENTS / "java/pom.xml")
    if not jars.exists():
        _run(
            "mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/jars", cwd=CLIENTS / "java"
        )
        (folder / "jars").rename(jars)
    return ["java", "-cp", f"{jars}/*", str(CLIENTS / "java/Reader.java")]


def build_typescript(folder: Path) -> list[str]:
    installed = _kept("typescript", CLIENTS / "typescript/package-lock.json")
    for name in ("package.json", "package-lock.json", "tsconfig.json", "reader.ts"):
        shutil.copy(CLIENTS / "typescript" / name, folder)
    if not installed.exists():
        _run("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=folder)
        (folder / "installed").mkdir()
        (folder / "node_modules").rename(folder / "installed/node_modules")
        (folder / "installed").rename(installed)
    (folder / "node_modules").symlink_to(installed / "node_modules")
    _run("node", "node_modules/typescript/bin/tsc", cwd=folder)
    return ["node", str(folder / "reader.js")]


def _kept(language: str, lock: Path) -> Path:
    """Where the libraries of a language are kept from one run to the next, by the file that names their versions."""
    folder = ROOT / "build/clients"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{language}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"


@pytest.mark.servers
@pytest.mark.parametrize("build", [build_python, build_go, build_java, build_typescript])
def test_a_reader_finds_what_the_golden_keys_hold(
    build: Callable[[Path], list[str]], golden: str, tmp_path: Path
) -> None:
    lines = _run(*build(tmp_path), golden, *(one["asked"] for one in EXPECTED), cwd=tmp_path).splitlines()
    found = [{name: value for name, value in json.loads(line).items() if value is not None} for line in lines]
    assert [one | {"embedding": []} for one in found] == [one | {"embedding": []} for one in EXPECTED]
    for one, expected in zip(found, EXPECTED, strict=True):
        assert one.get("embedding") == pytest.approx(expected.get("embedding"), abs=1e-6)


@pytest.mark.servers
def test_the_golden_keys_are_what_workers_write(golden: str) -> None:
    client = redis.Redis.from_url(f"redis://{golden}")
    of_kind: dict[str, tuple[Any, Any, Any]] = {
        "track": (track_key, track_answer, track_fields), "user": (user_key, user_answer, user_fields),
    }  # fmt: skip
    for one in EXPECTED:
        kind, _, name = one["asked"].partition(":")
        key_of, answer_of, fields_of = of_kind[kind]
        held: Any = client.hgetall(key_of(RELEASE, name))
        assert bool(held) == one["known"]
        held.pop(b"a_later_field", None)
        if held:
            written = fields_of(answer_of(name, RELEASE, held))
            assert {field.encode(): value for field, value in written.items()} == held


@pytest.mark.servers
def test_the_golden_keys_keep_the_contract_and_what_breaks_it_is_listed(golden: str) -> None:
    checked = CliRunner().invoke(cli, ["contract", "check", f"redis://{golden}"])
    assert checked.exit_code == 0, checked.output
    assert checked.stdout == "1 live, 1 taggram, 7 track, 2 user\nall as contract 1 says\n"
    client = redis.Redis.from_url(f"redis://{golden}")
    client.hset(track_key(RELEASE, "t1"), "status", "tagged-perhaps")
    client.hset(track_key(RELEASE, "failed"), "genre", "rock")
    client.hset(user_key(RELEASE, "ana"), "embedding", b"\0" * 160)
    client.hdel(user_key(RELEASE, "nobody-yet"), "revision")
    client.set(track_key(RELEASE, "text"), "x")
    client.set(taggram_key(RELEASE, "t1"), "TWTG")
    client.set("tw:what", "x")
    client.set("tw:history:{ana}", "tastewave's own")
    client.hset("tw:live", "contract", "2")
    checked = CliRunner().invoke(cli, ["contract", "check", f"redis://{golden}", "--json"])
    assert checked.exit_code == 1
    breaches = {one["key"]: one["what"] for one in json.loads(checked.stdout)["breaches"]}
    assert breaches.pop("tw:live") == "contract is b'2', not 1"
    assert breaches.pop(track_key(RELEASE, "failed")) == "status is failed, and genre is there"
    assert breaches.pop(user_key(RELEASE, "ana")) == "its embedding has norm 0.0000, not 1"
    assert breaches.pop(user_key(RELEASE, "nobody-yet")) == "the field revision is missing"
    assert breaches.pop(taggram_key(RELEASE, "t1")).startswith("a taggram has a header of 8 bytes")
    assert breaches.pop("tw:what") == "contract 1 has no such key"
    assert breaches.pop(track_key(RELEASE, "text")).startswith("WRONGTYPE")
    assert breaches.pop(track_key(RELEASE, "t1")).startswith("a field cannot be read: Invalid enum value")
    assert breaches == {}


@pytest.mark.servers
def test_a_redis_without_keys_of_tastewave_is_one_sentence(servers: Servers, environment: dict[str, str]) -> None:
    checked = CliRunner().invoke(cli, ["contract", "check", servers.redis.url])
    assert checked.exit_code == 1
    assert "Redis has no key that begins with tw:" in str(checked.exception)


@pytest.mark.servers
def test_the_acl_line_lets_a_reader_read_answers_and_nothing_else(servers: Servers, golden: str) -> None:
    from tastewave_reader import Reader

    line = next(line for line in (KIT / "README.md").read_text().splitlines() if line.startswith("ACL SETUSER"))
    owner = redis.Redis.from_url(servers.redis.url)
    owner.zadd("tw:history:{ana}", {"a": 1})
    try:
        owner.execute_command(*line.split())
        with Reader.from_url(f"redis://reader:PASSWORD@{golden}") as reader:
            assert reader.tracks(["t1"]).genre == ("jazz",)
            assert reader.users(["ana"]).source == ("history",)
        as_reader = redis.Redis.from_url(f"redis://reader:PASSWORD@{golden}")
        for command in (
            ("ZRANGE", "tw:history:{ana}", 0, -1), ("HSET", track_key(RELEASE, "t1"), "genre", "rock"),
            ("KEYS", "*"), ("HGETALL", "tw:history:{ana}"), ("FLUSHALL",),
        ):  # fmt: skip
            with pytest.raises(redis.exceptions.NoPermissionError):
                as_reader.execute_command(*command)
    finally:
        owner.acl_deluser("reader")
