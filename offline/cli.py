"""The `tastewave-offline` command: the list of its jobs. It imports none of them, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from models.contract import LISTENS
from models.errors import TastewaveError
from offline.jobs import Argument, Job, JobCommand, Option


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Make what workers use: dump listens, train and judge user towers and genre heads, build a release."""


@cli.group()
def synth() -> None:
    """Make the parts of a music platform that nobody may ship."""


FOLDER = click.Path(file_okay=False)

SYNTH_JOBS = (
    Job(
        name="audio",
        settings="offline.synth.music:SynthAudio",
        run="offline.synth.music:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        options=(Option("--tracks"), Option("--seconds"), Option("--seed"), Option("--format", "audio_format")),
        help="""Write short pieces of music in different styles to OUT_DIR: blues, classical, country, disco and so on.

        Equal options give equal music.

        \b
        Examples:
          tastewave-offline synth audio music
          tastewave-offline synth audio music --tracks 24 --seconds 45 --format mp3
        """,
    ),
    Job(
        name="platform",
        settings="offline.synth.settings:SynthPlatform",
        run="offline.synth.platform:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        options=(
            Option("--tracks"),
            Option("--artists"),
            Option("--users"),
            Option("--listens"),
            Option("--days"),
            Option("--seconds"),
            Option("--format", "audio_format"),
            Option("--no-audio"),
            Option("--seed"),
        ),
        help="""Make up a music platform in OUT_DIR: tracks with audio, their listeners' log, and the truth behind it.

        OUT_DIR gets tracks.parquet, audio/, listens/*.parquet (ordered by time) and truth/ (tastes and their drift).
        Equal options give equal bytes. Figures measured on it are plumbing: they were programmed in.

        \b
        Examples:
          tastewave-offline synth platform platform
          tastewave-offline synth platform big --tracks 50000 --users 100000 --listens 10000000 --no-audio
          tastewave-offline synth platform restless novelty=8 repeat_share=0.1
        """,
    ),
)

JOBS = (
    Job(
        name="train-user-tower",
        settings="offline.user_tower.train:TowerTraining",
        run="offline.cli:_train_user_tower",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(Option("--split"),),
        help="""Train a user tower on LOG: it takes the newest listens of a person and gives a place in taste space.

        LOG is a Parquet file, a folder of them, a glob or an fsspec URL. It has the columns user_id, track_id and at
        (milliseconds, UTC), and may have kind, played_ms and duration_ms. OUT_DIR gets the network (ONNX), the item
        table and the course of the training. A training that was stopped goes on when the command is run again.

        The test part, the last tenth of the log's time, is never looked at; the tenth before it chooses dropout and
        length. --split leave-last holds back each user's last two targets instead. `evaluate` judges by the test part.

        \b
        Examples:
          tastewave-offline train-user-tower listens/ towers/mean
          tastewave-offline train-user-tower listens/ towers/attention pooling=attention
          tastewave-offline train-user-tower ratings.parquet towers/long --split leave-last history=200
        """,
    ),
    Job(
        name="convert-musicnn",
        settings="offline.musicnn.convert:ConvertMusicnn",
        run="offline.musicnn.convert:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        help="""Convert the published musicnn checkpoints to musicnn-msd.onnx and musicnn-mtt.onnx in OUT_DIR.

        When OUT_DIR is left out, it is the release that ships with the project. The checkpoints come from the
        installed musicnn package, and TensorFlow reads them.

        \b
        Examples:
          tastewave-offline convert-musicnn
          tastewave-offline convert-musicnn build/networks
        """,
    ),
    Job(
        name="evaluate",
        settings="offline.evaluation.evaluate:Evaluate",
        run="offline.cli:_evaluate",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(Option("--tower", "towers", "DIR", click.Path(exists=True, file_okay=False)), Option("--split")),
        help="""Judge user towers on what was held back of LOG, against popularity, Markov chain, item kNN and EASE.

        LOG is a Parquet file of listens, a folder of them, a glob, or an fsspec URL of one of these. For every example
        the whole catalogue is ranked. OUT_DIR gets report.html, which says first where a tower does not beat the best
        of the others, and metrics.json: models.NAME.PROTOCOL.SLICE.METRIC and floors.NAME...

        \b
        Examples:
          tastewave-offline evaluate listens/ report
          tastewave-offline evaluate listens/ report --tower towers/mean --tower towers/attention
          tastewave-offline evaluate ratings.parquet report --split leave-last max_examples=10000
        """,
    ),
    Job(
        name="ladder",
        settings="offline.user_tower.train:TowerTraining",
        run="offline.cli:_ladder",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(Option("--split"),),
        help="""Print what the 40-d cosine of the contract and a history of 50 cost on LOG, against freer towers.

        Each rung is the same training with one thing changed: dot products of 64 and of 40 dimensions, cosine of 40,
        and that with a history of 50 instead of 200. So the ladder itself sets score, dim and history. OUT_DIR gets
        ladder.json.

        \b
        Example:
          tastewave-offline ladder ratings.parquet ladder --split leave-last
        """,
    ),
)

for job in SYNTH_JOBS:
    synth.add_command(JobCommand(job))
for job in JOBS:
    cli.add_command(JobCommand(job))


# The next three give the lines that a command prints, for jobs whose `run` does not return an Outcome yet.


class _Lines(list[str]):
    def lines(self) -> list[str]:
        return self


def _train_user_tower(config: Any) -> _Lines:
    from offline.user_tower.train import run

    trained = run(config)
    lines = _Lines()
    if again := trained["log"]["duplicates"]:
        lines.append(f"{again:,} rows of the log were the same listen again, and counted once")
    lines.append(
        f"{config.out}: user tower of {trained['tracks']:,} tracks; dropout {trained['dropout']:g}, best at step "
        f"{trained['best_step']:,} with a validation NDCG@10 of {trained['valid_ndcg_at_10']:.4f}"
    )
    return lines


def _evaluate(config: Any) -> _Lines:
    from rich.console import Console

    from offline.evaluation.evaluate import run, summary

    metrics = run(config)
    Console().print(summary(metrics))
    return _Lines([*metrics["verdict"], "", str(Path(config.out, "report.html"))])


def _ladder(config: Any) -> _Lines:
    from rich.console import Console

    from offline.user_tower.ladder import run, table

    Console().print(table(run(config)))
    return _Lines()


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
    from offline.config import load_config
    from offline.release.build import BuildRelease, run

    given = {"taggrams_dir": str(taggrams_dir), "out": out and str(out), "networks": networks and str(networks)}
    click.echo("\n".join(run(load_config(BuildRelease, **given)).lines()))


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
    from offline.config import load_config
    from offline.genre.score import ScoreGenre, run

    click.echo("\n".join(run(load_config(ScoreGenre, file=str(file), release=release)).lines()))


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
    from offline.interactions.dump import DumpConfig, KafkaArguments, dump_listens, time_ms

    config = DumpConfig(
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
    for line in dump_listens(folder, config).lines(folder):
        click.echo(line)


def main() -> None:
    """Entry point: an error of ours is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
