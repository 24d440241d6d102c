"""What the documents say is true: their settings, contract, commands, paths and links are those of the code."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import redis
from pydantic import SecretStr

import offline.cli
import stream.cli
from models import contract, errors
from models.events import (
    JSON_EVENTS,
    Listen,
    TrackCorrected,
    TrackFeatures,
    TrackTagged,
    TrackUploaded,
    WindowFeatures,
    decode_event,
)
from stream.broker.dead_letters import HEADERS
from stream.settings import SECTIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "deploy" / "docs"
README, CONTRIBUTING, RUNBOOK = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "runbook.md"
CHAPTERS = sorted(DOCS.glob("*.md"))
DOCUMENTS = [README, CONTRIBUTING, ROOT / "CHANGELOG.md", RUNBOOK, *CHAPTERS]
COMMANDS = {"tastewave": stream.cli.cli, "tastewave-offline": offline.cli.cli}
REGISTRIES = re.compile(r"\bpypi\.|\bpythonhosted\.|\brepo1?\.maven\.|\bdocker\.io\b|\bghcr\.io\b|\bquay\.io\b", re.I)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block."""
    yield from re.findall(r"^ *```(\w*)\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL)


def without_blocks(document: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def section(document: Path, heading: str) -> str:
    """The text from a heading to the next one of its level."""
    text = document.read_text()
    start = re.search(rf"^## {re.escape(heading)}.*$", text, re.MULTILINE)
    assert start, f"{name(document)} has no heading that begins with {heading!r}"
    return re.split(r"^## ", text[start.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(table: str) -> list[str]:
    """The names in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


# The README and its chapters


def test_the_readme_is_a_way_in_and_links_every_chapter() -> None:
    assert len(README.read_text().splitlines()) <= 200
    assert len(CHAPTERS) == 11
    table = section(README, "Where to go next")
    assert set(re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| .+\? \|$", table, re.MULTILINE)) == {
        *map(name, [*CHAPTERS, RUNBOOK, CONTRIBUTING])
    }


def test_every_link_leads_somewhere() -> None:
    links = [
        (document, path, anchor)
        for document in DOCUMENTS
        for path, anchor in re.findall(r"\]\((?!https://)([^)#]*)(?:#([^)]+))?\)", without_blocks(document))
    ]
    assert len(links) > 40
    for document, path, anchor in links:
        target = document.parent / path if path else document
        assert target.exists(), f"{name(document)} links {path}"
        assert not anchor or anchor in anchors(target), f"{name(document)} links {path}#{anchor}"


def test_the_readme_reads_an_answer_as_it_says(environment: dict[str, str], monkeypatch, capsys) -> None:
    track_id, release = "4f7958b395f9889f", "ea2da6218123"
    answer = TrackTagged(
        track_id=track_id, release=release, status="tagged", event_time=1, event_id="e", tagged_at=2,
        genre="jazz", confidence=0.885973, genres=(("jazz", 0.885973),), tags=(("jazz", 0.71428),),
    )  # fmt: skip
    shown = [text for language, text in blocks(README) if language == "python"]
    assert len(shown) == 1
    with redis.Redis.from_url(environment["TASTEWAVE_REDIS_URL"]) as client:
        client.hset(contract.LIVE_KEY, mapping={"contract": 1, "release": release})
        client.hset(contract.track_key(release, track_id), mapping=contract.track_fields(answer))
        monkeypatch.setattr(redis, "Redis", lambda: client)
        for text in shown:
            exec(compile(text, "README.md", "exec"), {})  # noqa: S102 - the README's own code
    assert capsys.readouterr().out == "b'tagged' b'jazz' [['jazz', 0.71428]]\n"


# Settings


@pytest.mark.parametrize("of", SECTIONS)
def test_the_table_of_each_section_of_settings_is_that_of_the_code(of: str) -> None:
    kind = SECTIONS[of]
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field, variable in kind.variables().items():
        default = kind.model_fields[field].default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, float):
            default = f"{default:g}"
        shown = f"`{default}`" if default not in (None, "") else ""
        rows.append(f"| `{variable}` | {shown} | {kind.model_fields[field].description} |")
    table = "\n".join(rows)
    assert f"\n\n{table}\n\n" in f"{section(DOCS / 'settings.md', of.capitalize())}\n", f"put this there:\n{table}"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name)
def test_every_setting_that_a_document_names_exists(document: Path) -> None:
    variables = {variable for kind in SECTIONS.values() for variable in kind.variables().values()}
    assert set(re.findall(r"\bTASTEWAVE_[A-Z_]*[A-Z]\b", document.read_text())) <= variables


# Contract


CONTRACT = DOCS / "contract.md"


def fields(kind: type) -> set[str]:
    return set(kind.__struct_fields__)


def test_the_contract_names_every_topic() -> None:
    topics = {value for value in vars(contract).values() if isinstance(value, str) and value.startswith("tastewave.")}
    assert len(topics) == 8
    assert topics <= set(re.findall(r"`(tastewave\.[a-z.-]+)`", CONTRACT.read_text()))
    assert topics >= {f"tastewave.{event}" for event in JSON_EVENTS}


def test_the_event_that_the_contract_shows_is_one() -> None:
    (shown,) = [text for language, text in blocks(CONTRACT) if language == "json"]
    assert decode_event(shown.encode(), TrackUploaded).track_id == "my-track"


def test_the_contract_has_every_field_of_an_upload_a_listen_and_a_correction() -> None:
    assert set(first_cells(section(CONTRACT, "What do I publish"))) == fields(TrackUploaded)
    assert set(first_cells(section(CONTRACT, "What is a listen"))) == fields(Listen)
    assert set(first_cells(section(CONTRACT, "How does an editor correct"))) == fields(TrackCorrected)


def test_the_contract_has_every_key_and_field_of_an_answer() -> None:
    answers = section(CONTRACT, "Where do I find the answer")
    keys = {
        contract.LIVE_KEY,
        contract.track_key("<release>", "<track_id>"),
        contract.taggram_key("<release>", "<track_id>"),
    }
    assert set(first_cells(answers)) == keys | fields(TrackTagged) - {"track_id", "release"}


def test_the_contract_has_every_field_of_the_features() -> None:
    published = section(CONTRACT, "What does tastewave publish")
    named = set(re.findall(r"`(\w+)`", published))
    assert named >= (fields(TrackFeatures) | fields(WindowFeatures))


def test_the_contract_has_every_header_of_a_dead_letter() -> None:
    assert set(first_cells(section(CONTRACT, "What does a dead letter tell"))) == set(HEADERS.values())


def test_the_contract_has_every_reason() -> None:
    def reasons(kind: type[errors.TastewaveError]) -> set[str]:
        return {kind.reason}.union(*map(reasons, kind.__subclasses__()))

    assert len(reasons(errors.TastewaveError)) == 15
    assert set(first_cells(section(CONTRACT, "Which reasons"))) == reasons(errors.TastewaveError)


# Commands and paths


def shown_commands(document: Path) -> Iterator[list[str]]:
    """The words of each command line of ours that a document shows, without the variables before it."""
    lines = [line.strip() for language, text in blocks(document) if not language for line in text.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", without_blocks(document))
    for line in lines:
        if found := re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*((?:tastewave|tastewave-offline|make) [^|>]+)", line):
            yield shlex.split(found[1], comments=True)


@pytest.mark.parametrize(
    ("document", "least"), [(README, 6), (CONTRIBUTING, 10), (RUNBOOK, 10), (DOCS / "production.md", 6)], ids=str
)
def test_documents_show_commands(document: Path, least: int) -> None:
    assert len(list(shown_commands(document))) >= least


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_and_option_that_a_document_shows_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *words in shown_commands(document):
        if program == "make":
            assert words[0] in targets, f"make {words[0]}"
            continue
        command: click.Command = COMMANDS[program]
        while isinstance(command, click.Group) and words:
            if command.invoke_without_command and words[0].startswith("-"):
                break
            word = words.pop(0)
            assert word in command.commands, f"{name(document)} shows {program} ... {word}"
            command = command.commands[word]
        options = {option for parameter in command.get_params(click.Context(command)) for option in parameter.opts}
        given = {word for word in words if word.startswith("-")}
        assert given <= options, f"{name(document)} shows {given - options} of {command.name}"


def test_the_map_for_newcomers_has_every_wing_and_names_nothing_that_is_not_there() -> None:
    rows = re.findall(r"^\| .+ \| (.+) \| (.+) \|$", section(CONTRIBUTING, "I want to change something"), re.MULTILINE)
    paths = {path for row in rows for cell in row for path in re.findall(r"`([\w./-]+[/.][\w./-]*)`", cell)}
    modules = {
        f"{wing}{module}.py"  # `stream/audio/` (`pool`, `sandbox`)
        for place, _ in rows
        for wing, names in re.findall(r"`(\w[\w/]*/)` \(([^)]+)\)", place)
        for module in re.findall(r"`(\w+)`", names)
    }
    assert len(modules) > 20
    assert [path for path in sorted(paths | modules) if not (ROOT / path).exists()] == []
    wings = {
        f"{path.parent.relative_to(ROOT)}/"
        for room in ("models", "stream", "offline", "deploy")
        for path in (ROOT / room).rglob("__init__.py")
        if path.parent != ROOT / room
    }
    assert len(wings) >= 16
    assert wings - paths == set()
    named = {module.rpartition("/")[0] for module in modules}
    there = {str(path.relative_to(ROOT)) for wing in named for path in (ROOT / wing).glob("*.py")}
    assert {path for path in there if not path.endswith("__init__.py")} - modules == set()


@pytest.mark.parametrize("room", ["models", "stream", "offline", "deploy", "tests", ".ci", "."])
def test_no_file_names_the_host_of_a_package_registry(room: str) -> None:
    files = (ROOT / room).glob("*" if room == "." else "**/*")
    texts = {".py", ".md", ".toml", ".txt", ".yaml", ".xml", ".sh", ".properties", ".conf", ".json", ""}
    read = [path for path in files if path.is_file() and path.suffix in texts and path.name != ".git"]
    assert read
    named = [name(path) for path in read if REGISTRIES.search(path.read_text(errors="replace"))]
    assert named == []
