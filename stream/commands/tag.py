"""`tastewave tag`: genre and tags of audio files, heard on this machine, without Kafka or Redis."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Literal

import click
import msgspec
from rich.console import Console
from rich.table import Column
from rich.text import Text

from models.errors import FetchFailed, NotFound, SettingsError, TastewaveError, TooLarge
from stream.commands.audio_files import audio_in
from stream.commands.tables import length, print_table, progress_bar

if TYPE_CHECKING:
    from models.release import Release
    from models.tagging import Tagging

# Slow imports stand in the functions that need them, so that one file is tagged in under a second.

_TIMEOUT_S = 120.0
_MEMORY_MB = 1024
_PIPE_MAX_BYTES = 2 * 10**9
_PIPE_PART_BYTES = 2**20
_PLOT_COLUMN_FRAMES = 62  # 1 s
_PLOT_COLUMNS = 400


class TaggingFailed(TastewaveError):
    """Some of the files could not be tagged."""


class TaggedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of --json: the fields of TrackTagged, for a file; reason and error only when status is failed."""

    file: str
    release: str
    status: Literal["tagged", "abstained", "failed"]
    genre: str | None = None
    confidence: float | None = None
    genres: tuple[tuple[str, float], ...] = ()
    genres_from: Literal["tags"] | None = None
    tags: tuple[tuple[str, float], ...] = ()
    embedding: tuple[float, ...] | None = None
    duration_s: float | None = None
    reason: str | None = None
    error: str | None = None


def tag_files(
    audio: Sequence[str],
    *,
    release: str | None = None,
    top_k: int = 5,
    as_json: bool = False,
    plot: Path | None = None,
    features: Path | None = None,
) -> None:
    """Tag files, and the audio files in folders; print a table, or a JSON line for each file as soon as it is tagged.

    Args:
        audio: files, pipes and folders.
        release: folder or URL of the release; the shipped one when None.
        top_k: how many genres and tags to print.
        as_json: print lines of TaggedFile instead of the table.
        plot: where to draw the taggram of the only file (PNG).
        features: where to write everything that musicnn computes for the whole of the only file (npz).

    Raises:
        SettingsError: a folder has no audio, there is more than one file to plot, or an output cannot be written.
        ReleaseError: the release cannot be used.
        AudioError: the file for the features cannot be decoded.
        TooLarge: a pipe does not end.
        TaggingFailed: after everything was printed, when a file could not be tagged.
    """
    # Read when numpy is imported. The threads of OpenBLAS would compete for the cores, and make nothing faster here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from models.release import load_release

    files = _find(audio)
    if len(files) > 1 and (plot or features):
        raise SettingsError(f"--plot and --features take one file, got {len(files)}; name one")
    loaded = load_release(release)
    answers: list[TaggedFile] = []

    def tell(tagging: Tagging | TastewaveError) -> None:
        answers.append(_answer(files[len(answers)], tagging, loaded.release_id, top_k))
        if as_json:
            click.echo(msgspec.json.encode(answers[-1]))

    with _seekable(files) as sources:
        if len(files) == 1:
            _tag_here(sources[0], loaded, tell)
        else:
            _tag_side_by_side(sources, loaded, tell, show_progress=not (as_json and sys.stdout.isatty()))
        if not as_json:
            _print_table(answers)
        if features:
            _write_features(features, loaded, sources[0])
        if plot and answers[0].status != "failed":
            _draw(plot, loaded, sources[0], answers[0])
    if failed := sum(answer.status == "failed" for answer in answers):
        raise TaggingFailed(f"{failed} of {len(answers)} files could not be tagged; see the reasons above")


def _find(audio: Iterable[str]) -> list[Path]:
    """Each file as it is named, whether it is there or not; for a folder, its files with an audio suffix."""
    files: list[Path] = []
    for path in map(Path, audio):
        files += audio_in(path) if path.is_dir() else [path]
    return files


@contextmanager
def _seekable(files: Iterable[Path]) -> Generator[list[Path]]:
    """The files, with copies in the place of pipes, as `tag <(cat a.mp3)` names them: decoders must seek."""
    with ExitStack() as copies:
        yield [copies.enter_context(_copied(file)) if file.is_fifo() else file for file in files]


@contextmanager
def _copied(pipe: Path) -> Generator[Path]:
    with pipe.open("rb") as source, NamedTemporaryFile(prefix="tastewave-") as copy:
        while part := source.read(_PIPE_PART_BYTES):
            copy.write(part)
            if copy.tell() > _PIPE_MAX_BYTES:
                raise TooLarge(f"{_shown(pipe)} gives more than {_PIPE_MAX_BYTES} bytes; write it to a file first")
        copy.flush()
        yield Path(copy.name)


def _tag_here(file: Path, release: Release, tell: Callable[[Tagging | TastewaveError], None]) -> None:
    from models.tagger import Tagger

    try:
        tagging = Tagger(release).tag(file)
    except (TastewaveError, OSError) as error:
        tell(_failure(file, error))
    else:
        tell(tagging)


def _tag_side_by_side(
    files: Sequence[Path],
    release: Release,
    tell: Callable[[Tagging | TastewaveError], None],
    *,
    show_progress: bool,
) -> None:
    """Tag files in as many processes as there are cores, and call `tell` for each in the order of the files."""
    import asyncio

    from models.tagger import MAX_DURATION_S
    from stream.audio.pool import TaggerPool

    progress = progress_bar(shown=show_progress)
    pool = TaggerPool(
        str(release.folder),
        processes=min(len(files), len(os.sched_getaffinity(0))),
        timeout_s=_TIMEOUT_S,
        memory_mb=_MEMORY_MB,
        max_duration_s=MAX_DURATION_S,
    )

    async def tag(file: Path) -> Tagging | TastewaveError:
        try:
            async with open_files:
                with file.open("rb") as audio:
                    return await pool.tag(audio)
        except (TastewaveError, OSError) as error:
            return _failure(file, error)
        finally:
            progress.advance(task)

    async def tag_all() -> None:
        await pool.ready()
        taggings = [asyncio.create_task(tag(file)) for file in files]
        for tagging in taggings:
            tell(await tagging)

    open_files = asyncio.Semaphore(2 * pool.processes)
    with progress:
        task = progress.add_task("tagging", total=len(files))
        try:
            pool.launch()
            asyncio.run(tag_all())
        finally:
            pool.stop()


def _failure(file: Path, error: TastewaveError | OSError) -> TastewaveError:
    if isinstance(error, TastewaveError):
        return error
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{_shown(file)} is not there; name a file or folder")
    return FetchFailed(f"{_shown(file)} cannot be read ({error.strerror}); check the file")


def _answer(file: Path, tagging: Tagging | TastewaveError, release_id: str, top_k: int) -> TaggedFile:
    if isinstance(tagging, TastewaveError):
        return TaggedFile(
            file=_shown(file), release=release_id, status="failed", reason=tagging.reason, error=str(tagging)
        )
    return TaggedFile(
        file=_shown(file),
        release=release_id,
        status=tagging.status,
        genre=tagging.genre,
        confidence=tagging.confidence,
        genres=tagging.genres[:top_k],
        genres_from=tagging.genres_from,
        tags=tagging.tags[:top_k],
        embedding=tagging.embedding,
        duration_s=round(tagging.duration_s, 3),
    )


def _shown(file: Path) -> str:
    """The name as text; bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(file).decode(errors="replace")


def _print_table(answers: Sequence[TaggedFile]) -> None:
    names = [answer.file for answer in answers]
    if len(names) > 1:
        folder = os.path.commonpath([Path(name).absolute().parent for name in names])
        names = [os.path.relpath(name, folder) for name in names]
        Console().print(Text(f"in {folder}"), soft_wrap=True)
    file, confidence = Column("file", overflow="fold"), Column("confidence", justify="right")
    print_table(
        (file, Column("length", justify="right"), "genre", confidence, "top tags"),
        [(name, *_cells(answer)) for name, answer in zip(names, answers, strict=True)],
        pad_edge=False,
    )


def _cells(answer: TaggedFile) -> tuple[str | Text | None, ...]:
    if answer.status == "failed":
        return None, Text(f"failed: {answer.reason}", style="red"), None, answer.error
    if answer.genre:
        genre, style = Text(answer.genre, style="bold"), ""
    else:
        genre, style = Text.assemble("abstained ", (f"({answer.genres[0][0]}?)", "dim")), "dim"
    tags = ", ".join(tag for tag, _ in answer.tags)
    return length(answer.duration_s or 0.0), genre, Text(f"{answer.confidence:.2f}", style=style), tags


def _write_features(path: Path, release: Release, file: Path) -> None:
    import numpy as np

    from models.tagger import whole_features

    arrays = whole_features(release, file)
    with _replacing(path) as out:
        np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]


def _draw(path: Path, release: Release, file: Path, answer: TaggedFile) -> None:
    """Draw the whole file: a column for each second, or for longer stretches where that would be over 400 columns."""
    from models.mel import MUSICNN
    from models.musicnn import TAGS
    from models.tagger import whole_log_mel
    from stream.commands.plot import draw_taggram

    log_mel = whole_log_mel(release, file)
    hop = max(_PLOT_COLUMN_FRAMES, len(log_mel) // _PLOT_COLUMNS)
    model = release.configuration.run[0]
    taggram = release.network(model)(log_mel, hop=hop).taggram
    verdict = answer.genre or f"abstained, perhaps {answer.genres[0][0]}"
    with _replacing(path) as out:
        draw_taggram(
            out,
            taggram,
            tags=TAGS[model],
            column_s=hop * MUSICNN.hop_length / MUSICNN.sample_rate,
            title=Path(answer.file).name,
            subtitle=f"{verdict} · confidence {answer.confidence:.2f}",
        )


@contextmanager
def _replacing(path: Path) -> Generator[IO[bytes]]:
    """Write to a file beside path that takes its place at the end; when writing fails, path stays as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}); name another place") from error
    finally:
        partial.unlink(missing_ok=True)
