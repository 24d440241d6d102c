"""The `tastewave-offline` command. Bodies import what they need, so that --help answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from models.contract import LISTENS
from models.errors import TastewaveError

if TYPE_CHECKING:
    from offline.evaluation.evaluate import Evaluate, Outcome

Command_ = TypeVar("Command_", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Make what workers use: dump listens, train and judge user towers and genre heads, build a release."""


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

    from offline.synth.music import write_tracks

    paths = write_tracks(folder, tracks=tracks, duration_s=seconds, seed=seed, audio_format=audio_format)
    for path in track(paths, description="Synthesising", total=tracks, transient=True):
        click.echo(path)


@synth.command("platform")
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option("--tracks", type=int, default=200, show_default=True, help="Tracks, in eight styles.")
@click.option("--artists", type=int, help="Artists; one for every eight tracks when absent.")
@click.option("--users", type=int, default=500, show_default=True, help="Listeners.")
@click.option("--listens", type=int, default=50_000, show_default=True, help="Events of all kinds.")
@click.option("--days", type=int, default=90, show_default=True, help="Days that they span.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Length of each audio file.")
@click.option("--format", "audio_format", default="flac", show_default=True, help="Format of the audio files.")
@click.option("--no-audio", is_flag=True, help="No audio files; the rest stays as it is.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed, another platform.")
def synth_platform(out_dir: Path, *, audio_format: str, no_audio: bool, **settings: Any) -> None:
    """Make up a music platform in OUT_DIR: tracks with audio, their listeners' log, and the truth behind it.

    OUT_DIR gets tracks.parquet, audio/, listens/*.parquet (ordered by time) and truth/ (tastes and their drift).
    Equal options give equal bytes. Figures measured on it are plumbing: they were programmed in.

    \b
    Examples:
      tastewave-offline synth platform platform
      tastewave-offline synth platform big --tracks 50000 --users 100000 --listens 10000000 --no-audio
    """
    from offline.synth.platform import CAVEAT, SynthPlatform, run

    config = SynthPlatform(audio_format=None if no_audio else audio_format, **settings)
    run(config, out_dir)
    click.echo(f"{out_dir}: {config.listens:,} listens of {config.users:,} users to {config.tracks:,} tracks. {CAVEAT}")


def _show_settings(module: str, kind: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    """Callback of --settings: list what can be set in a configuration, and exit."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted:
            return
        from offline.config import describe_settings

        for name, default, meaning in describe_settings(getattr(import_module(module), kind)):
            click.echo(f"{name}={default}" if default else name)
            click.echo(click.wrap_text(meaning, 100, initial_indent="    ", subsequent_indent="    "))
        context.exit()

    return show


def configured(module: str, kind: str) -> Callable[[Command_], Command_]:
    """The arguments and options of a job: [KEY=VALUE]..., --config and --settings."""

    def decorate(command: Command_) -> Command_:
        for option in (
            click.option("--settings", is_flag=True, is_eager=True, expose_value=False,
                         callback=_show_settings(module, kind), help="List what KEY can be, and exit."),
            click.option("--config", "toml", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                         metavar="FILE", help="TOML of settings; KEY=VALUE wins over it."),
            click.argument("words", metavar="[KEY=VALUE]...", nargs=-1),
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


_split = click.option(
    "--split", type=click.Choice(["temporal", "leave-last"]), help="What is held back; temporal when absent."
)


@cli.command("train-user-tower")
@click.argument("log")
@click.argument("out", metavar="OUT_DIR", type=click.Path(file_okay=False))
@_split
@configured("offline.user_tower.settings", "TowerTraining")
def train_user_tower(log: str, out: str, words: tuple[str, ...], toml: Path | None, split: str | None) -> None:
    """Train a user tower on LOG: from the newest listens of a person to a place in taste space.

    LOG is a Parquet file, a folder of them, a glob or an fsspec URL, with the columns user_id, track_id and at
    (milliseconds, UTC), and where there are such kind, played_ms and duration_ms. OUT_DIR gets the network (ONNX),
    the item table and the story of the training. A training that was stopped goes on when it is run again.

    The last tenth of the log's time is never looked at, and the tenth before it chooses dropout and length;
    --split leave-last holds back each user's last two targets instead. `evaluate` judges by what was held back.

    \b
    Examples:
      tastewave-offline train-user-tower listens/ towers/mean
      tastewave-offline train-user-tower listens/ towers/attention pooling=attention
      tastewave-offline train-user-tower ratings.parquet towers/long --split leave-last history=200
    """
    from offline.config import load_config
    from offline.user_tower.settings import TowerTraining
    from offline.user_tower.train import run

    outcome = run(load_config(TowerTraining, toml=toml, overrides=words, log=log, out=out, split=split))
    click.echo("\n".join(outcome.lines()))


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
    from offline.musicnn.convert import DEFAULT_RELEASE, convert_musicnn

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
    from offline.release.build import build_release

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
    from offline.genre.labels import read_taggrams
    from offline.genre.score import score_genre

    head = load_release(release).genre_head()
    score = score_genre(head, read_taggrams(file, classes=len(head.classes)))
    click.echo("\n".join(score.lines()))


@cli.command("evaluate")
@click.argument("log")
@click.argument("out", metavar="OUT_DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--tower", "towers", multiple=True, metavar="DIR", type=click.Path(exists=True, file_okay=False),
              help="A trained tower; may be repeated. Without any, both poolings are trained first.")  # fmt: skip
@_split
@configured("offline.evaluation.evaluate", "Evaluate")
def evaluate_command(
    log: str, out: Path, *, words: tuple[str, ...], towers: tuple[str, ...], split: str | None, toml: Path | None
) -> None:
    """Judge user towers on what was held back of LOG, against popularity, Markov chain, item kNN and EASE.

    LOG is a Parquet file of listens, a folder of them, a glob, or an fsspec URL of one of these. Every track is
    ranked for every example. OUT_DIR gets report.html, which says first where a tower does not beat the best of the
    others, and metrics.json: models.NAME.PROTOCOL.SLICE.METRIC and floors.NAME...

    \b
    Examples:
      tastewave-offline evaluate listens/ report
      tastewave-offline evaluate listens/ report --tower towers/mean --tower towers/attention
      tastewave-offline evaluate ratings.parquet report --split leave-last max_examples=10000
    """
    from offline.config import load_config
    from offline.evaluation.evaluate import Evaluate

    settings = load_config(
        Evaluate, toml=toml, overrides=words, log=log, out=str(out), towers=towers or None, split=split
    )
    click.echo("\n".join(_evaluate(settings).lines()))


def _evaluate(settings: Evaluate) -> Outcome:
    """Evaluate; where no tower is given, first train one of each pooling."""
    from offline.evaluation.evaluate import run

    if not settings.towers:
        from offline.user_tower.poolings import train_poolings

        train_poolings(
            settings.towers_folder,
            log=settings.log,
            split=settings.split,
            test_share=settings.test_share,
            counting=settings.counting,
        )
    return run(settings)


@cli.command("ladder")
@click.argument("log")
@click.argument("out", metavar="OUT_DIR", type=click.Path(file_okay=False))
@_split
@configured("offline.user_tower.ladder", "Ladder")
def ladder(log: str, out: str, words: tuple[str, ...], toml: Path | None, split: str | None) -> None:
    """Print what the 40-d cosine of the contract and a history of 50 cost on LOG, against freer towers.

    The same training for each rung: dot products of 64 and of 40 dimensions, cosine of 40, and that with a history of
    50 instead of 200; so it is the ladder that sets score, dim and history. OUT_DIR gets ladder.json.

    \b
    Example:
      tastewave-offline ladder ratings.parquet ladder --split leave-last
    """
    from offline.config import load_config
    from offline.user_tower.ladder import Ladder, run

    outcome = run(load_config(Ladder, toml=toml, overrides=words, log=log, out=out, split=split))
    click.echo("\n".join(outcome.lines()))


@cli.command("dump")
@click.argument("folder", metavar="OUT_DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--brokers", default="127.0.0.1:9092", show_default=True, help="host:port, comma separated.")
@click.option("--topic", default=LISTENS, show_default=True, help="Its whole name, with the prefix where there is one.")
@click.option("--partition", "partitions", type=click.IntRange(0), multiple=True, metavar="N",
              help="This partition alone; may be repeated.")  # fmt: skip
@click.option("--from-time", metavar="TIME", help="ISO 8601, UTC where it names no zone.")
@click.option("--to-time", metavar="TIME", help="Likewise; the range ends before it.")
@click.option("--from-offset", type=click.IntRange(0), metavar="N", help="In each partition.")
@click.option("--to-offset", type=click.IntRange(0), metavar="N", help="In each partition; the range ends before it.")
@click.option("--client-config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="TOML of kafka-python's security_protocol, sasl_... and ssl_... arguments.")  # fmt: skip
@click.option("--events-per-file", type=click.IntRange(1, 10_000_000), default=1_000_000, show_default=True,
              help="At most.")  # fmt: skip
def dump_command(
    folder: Path,
    *,
    brokers: str,
    topic: str,
    partitions: tuple[int, ...],
    from_time: str | None,
    to_time: str | None,
    from_offset: int | None,
    to_offset: int | None,
    client_config: Path | None,
    events_per_file: int,
) -> None:
    """Write the listens on Kafka to OUT_DIR: Parquet files, which together are an interaction log.

    Without a range it is all that Kafka holds when the command starts. Run it again, after new events came or it was
    stopped in any way: it reads what no file in OUT_DIR covers yet, so no event is lost and none is doubled. Times
    are Kafka's own, of when an event was produced. A file's name says what it covers:

    \b
      listens-TOPIC-pPARTITION-FIRST-END.parquet     offsets from FIRST to before END
      malformed-TOPIC-pPARTITION-FIRST-END.jsonl     what of them is no listens event, and why

    No password stands on the command line. A FILE for a Kafka with SASL:

    \b
      security_protocol = "SASL_SSL"
      sasl_mechanism = "SCRAM-SHA-512"
      sasl_plain_username = "trainer"
      sasl_plain_password = "..."
      ssl_cafile = "/etc/kafka/ca.pem"

    \b
    Examples:
      tastewave-offline dump listens
      tastewave-offline dump listens --brokers kafka-1:9092,kafka-2:9092 --client-config kafka.toml
      tastewave-offline dump listens --topic prod.tastewave.listens --from-time 2026-11-01 --to-time 2026-11-08
      tastewave-offline dump listens --partition 3 --from-offset 120000 --to-offset 130000
    """
    from offline.config import load_config
    from offline.interactions.dump import Dump, run, time_ms
    from offline.interactions.dump_kafka import KafkaArguments

    settings = Dump(
        out=str(folder),
        brokers=brokers,
        topic=topic,
        partitions=partitions,
        from_time_ms=time_ms(from_time) if from_time else None,
        to_time_ms=time_ms(to_time) if to_time else None,
        from_offset=from_offset,
        to_offset=to_offset,
        client=load_config(KafkaArguments, toml=client_config),
        events_per_file=events_per_file,
    )
    click.echo("\n".join(run(settings).lines()))


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
