"""The `tastewave-offline` command. Bodies import what they need, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from models.errors import TastewaveError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Convert networks, train and score the genre head, build a release, make synthetic audio."""


@cli.group()
def synth() -> None:
    """Make the parts of a music platform that nobody may ship."""


@synth.command("audio")
@click.argument("folder", metavar="OUT_DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--tracks", type=click.IntRange(1), default=8, show_default=True, help="How many, round the styles.")
@click.option("--seconds", type=click.FloatRange(0.5, 3600.0), default=30.0, show_default=True, help="Length of each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other music.")
@click.option("--format", "audio_format", type=click.Choice(["wav", "flac", "ogg", "mp3"]), default="flac",
              show_default=True, help="File format.")  # fmt: skip
def synth_audio(folder: Path, tracks: int, seconds: float, seed: int, audio_format: str) -> None:
    """Write short pieces of music in different styles to OUT_DIR: blues, classical, country, disco, hiphop ...

    Equal options give equal music.

    \b
    Examples:
      tastewave-offline synth audio music
      tastewave-offline synth audio music --tracks 24 --seconds 45 --format mp3
    """
    from rich.progress import track

    from offline.synth_audio import write_tracks

    paths = write_tracks(folder, tracks=tracks, duration_s=seconds, seed=seed, audio_format=audio_format)
    for path in track(paths, description="Synthesising", total=tracks, transient=True):
        click.echo(path)


@cli.command("convert-musicnn")
@click.argument("out_dir", required=False, type=click.Path(file_okay=False, path_type=Path))
def convert_musicnn_command(out_dir: Path | None) -> None:
    """Convert the published musicnn checkpoints to musicnn-msd.onnx and musicnn-mtt.onnx in OUT_DIR.

    OUT_DIR is the release that ships with the project when it is not given. The checkpoints come from the
    installed musicnn package, and TensorFlow reads them.

    \b
    Examples:
      tastewave-offline convert-musicnn
      tastewave-offline convert-musicnn build/networks
    """
    from offline.convert import DEFAULT_RELEASE, convert_musicnn

    for file in convert_musicnn(out_dir or DEFAULT_RELEASE):
        click.echo(f"{file.path}  {file.size_bytes / 1e6:.1f} MB  sha256 {file.sha256}")


@cli.command("build-release")
@click.argument("taggrams_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the release; the one that ships with the project when absent.")  # fmt: skip
@click.option("--networks", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of the converted networks; that of the shipped release when absent.")  # fmt: skip
def build_release_command(taggrams_dir: Path, out: Path | None, networks: Path | None) -> None:
    """Train the genre head on TAGGRAMS_DIR (train.npz, train_artists.csv) and write a release.

    Takes about a minute. The same data give the same release id on the same machine.

    \b
    Examples:
      tastewave-offline build-release gtzan-musicnn-taggram
      tastewave-offline build-release gtzan-musicnn-taggram --out releases/2026-11
    """
    from models.release import DEFAULT
    from offline.release import build_release

    release = build_release(taggrams_dir, out=out or DEFAULT, networks_dir=networks or DEFAULT)
    for name, value in release.manifest.metrics.items():
        click.echo(f"{name} {value:.3f}")
    click.echo(f"release {release.release_id} in {release.folder}")


@cli.command("score-genre")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--release", help="Folder or URL of the release; the one that ships with the project when absent.")
def score_genre_command(file: Path, release: str | None) -> None:
    """Score the genre head of a release on the labelled musicnn MSD taggrams of FILE (an npz with X, Y, IDS).

    X (patches, 50), Y the genre's number in the order of the head's genres, IDS the track of each patch. The
    best guess for every track counts, whether the head would abstain or not.

    \b
    Examples:
      tastewave-offline score-genre test.npz
      tastewave-offline score-genre test.npz --release releases/2026-11
    """
    from models.release import load_release
    from offline.genre_score import score_genre
    from offline.taggrams import read_taggrams

    head = load_release(release).genre_head()
    score = score_genre(head, read_taggrams(file, classes=len(head.classes)))
    click.echo("\n".join(score.lines()))


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
