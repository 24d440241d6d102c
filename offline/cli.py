"""The `tastewave-offline` command: the list of its jobs. It imports none of them, so that --help answers at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from models.errors import TastewaveError
from offline.jobs import Argument, Job, JobCommand, Option

if TYPE_CHECKING:
    from offline.evaluation.evaluate import Outcome
    from offline.evaluation.settings import Evaluate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tastewave")
def cli() -> None:
    """Make models: dump listens, train and judge user towers and genre heads, build and publish a release."""


@cli.group()
def synth() -> None:
    """Make synthetic music, or a whole made-up platform."""


@cli.group()
def reproduce() -> None:
    """Run the paper's protocol, with controls, on a public set."""


def _time_ms(text: str) -> int:
    from offline.interactions.dump import time_ms

    return time_ms(text)


FOLDER = click.Path(file_okay=False)
FOLDER_THAT_IS = click.Path(exists=True, file_okay=False)

SYNTH_JOBS = (
    Job(
        name="audio",
        settings="offline.synth.music:SynthAudio",
        run="offline.synth.music:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        options=(Option("--tracks"), Option("--seconds"), Option("--seed"), Option("--format", "audio_format")),
        short="Write short pieces of synthetic music.",
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
        short="Make up a music platform with listeners.",
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

_PROTOCOL_OPTIONS = (
    Option("--out", shown="DIR", type=FOLDER),
    Option("--release", shown="DIR"),
    Option("--log"),
    Option("--store", shown="DIR", type=FOLDER_THAT_IS),
    Option("--tower", shown="DIR", type=FOLDER_THAT_IS),
    Option("--force"),
    Option("--permutations"),
    Option("--seed"),
    Option("--processes"),
    Option("--ray", shown="ADDRESS"),
)

REPRODUCE_JOBS = (
    Job(
        name="gtzan",
        settings="offline.reproduce.settings:ReproduceGtzan",
        run="offline.reproduce.gtzan:run",
        options=(Option("--audio", shown="DIR", type=FOLDER_THAT_IS), *_PROTOCOL_OPTIONS),
        short="Run the protocol on GTZAN.",
        help="""Run the protocol of Chen & Liang on the tracks of GTZAN without known faults: 443 / 197 / 290.

        Prints, beside the paper's figures, the reference repository's recipe, heads that hear each track's sound with
        and without the preference embedding, the embedding alone, and three controls: encoders whose artists have
        exchanged their listeners, a random encoder, and noise. The embedding is that of a release's audio encoder, or
        of one that is trained on a log, on the store that `features` wrote of the log's tracks. A demonstration taste
        space is refused without --force.

        The folder of --out gets all that is made on the way, and results/ with results.json and report.md. A run that
        was stopped goes on when the command is run again.

        \b
        Examples:
          tastewave-offline reproduce gtzan --audio genres/ --log listens/ --store features --tower towers/mean
          tastewave-offline reproduce gtzan --audio genres/ --release releases/2026-11 --out gtzan-2026-11
        """,
    ),
    Job(
        name="fma-small",
        settings="offline.reproduce.settings:ReproduceFmaSmall",
        run="offline.reproduce.fma_small:run",
        options=(
            Option("--audio", shown="DIR", type=FOLDER_THAT_IS),
            Option("--metadata", shown="DIR", type=FOLDER_THAT_IS),
            *_PROTOCOL_OPTIONS,
        ),
        short="Run the protocol on FMA-small.",
        help="""Run the protocol of Chen & Liang on FMA-small: 7:3 stratified, and the set's split between artists.

        As `reproduce gtzan`. The folder of --metadata holds tracks.csv. Six clips that are known as broken are left
        out.

        \b
        Examples:
          tastewave-offline reproduce fma-small --audio fma_small --metadata fma_metadata --release releases/2026-11
          tastewave-offline reproduce fma-small --audio fma_small --metadata fma_metadata --log log/ --store features
        """,
    ),
)

JOBS = (
    Job(
        name="train-user-tower",
        settings="offline.user_tower.settings:TowerTraining",
        run="offline.user_tower.train:run",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(
            Option("--split"),
            Option("--held-out", shown="FILE"),
            Option("--processes"),
            Option("--ray", shown="ADDRESS"),
        ),
        short="Train a user tower on a log of listens.",
        help="""Train a user tower on LOG: it takes the newest listens of a person and gives a place in taste space.

        LOG is a Parquet file, a folder of them, a glob or an fsspec URL. It has the columns user_id, track_id and at
        (milliseconds, UTC), and may have kind, played_ms and duration_ms. OUT_DIR gets the network (ONNX), the item
        table and the course of the training. A training that was stopped goes on when the command is run again.

        The test part, the last tenth of the log's time, is never looked at; the tenth before it chooses dropout and
        length. --split leave-last holds back each user's last two targets instead. `evaluate` judges by the test part.
        --held-out names the tracks by which an audio encoder will be judged: what `hold-out` wrote.

        \b
        Examples:
          tastewave-offline train-user-tower listens/ towers/mean
          tastewave-offline train-user-tower listens/ towers/attention pooling=attention
          tastewave-offline train-user-tower ratings.parquet towers/long --split leave-last history=200
          torchrun --nproc-per-node 2 --no-python tastewave-offline train-user-tower listens/ towers/mean
        """,
    ),
    Job(
        name="embed-users",
        settings="offline.users.settings:EmbedUsers",
        run="offline.users.embed:run",
        arguments=(Argument("log", "LOG"), Argument("moments", "MOMENTS"), Argument("out", "OUT_FILE")),
        options=(
            Option("--release"),
            Option("--forgotten"),
            Option("--processes"),
            Option("--ray", shown="ADDRESS"),
        ),
        short="Embed users as of moments, from a log.",
        help="""Write to OUT_FILE where users stood in taste space at MOMENTS, by their listens of LOG up to then.

        An embedding is the one that Redis would have answered with at that moment: it is computed by the same code,
        from the events dated up to then. So a ranker that is trained on them does not look into the future.

        MOMENTS is Parquet with the columns user_id and at (milliseconds, UTC, or a timestamp). OUT_FILE is Parquet with
        a row for each of them, in the order of users and times: user_id, at, embedding (float32), source (history, or
        global where no listen counted by then) and listens. Set history and feedback to what the workers keep. A run
        that was stopped goes on when the command is run again.

        \b
        Examples:
          tastewave-offline embed-users listens/ moments.parquet users.parquet --release towers/mean
          tastewave-offline embed-users listens/ moments.parquet users.parquet --release releases/2026-11 history=128
          tastewave-offline embed-users listens/ moments.parquet users.parquet --forgotten forgotten/
        """,
    ),
    Job(
        name="features",
        settings="offline.features.settings:Features",
        run="offline.features.extract:run",
        arguments=(Argument("catalogue", "CATALOGUE"), Argument("out", "OUT_DIR", FOLDER)),
        options=(
            Option("--release"),
            Option("--genre-folders"),
            Option("--processes"),
            Option("--ray", shown="ADDRESS"),
        ),
        short="Compute what a catalogue sounds like.",
        help="""Compute the features of the tracks of CATALOGUE, and keep them in OUT_DIR for trainings.

        Each track is heard as a worker hears it: the release's windows, loudness and networks. OUT_DIR gets sealed
        shards with log-mels, taggrams and max_pools of each window, tracks.parquet, and failures.csv with the tracks
        that cannot be heard and why. A run that was stopped goes on when the command is run again, and later runs hear
        only what is new or has changed. A folder whose features are of another front end, network or spectrogram is
        refused.

        CATALOGUE is Parquet or CSV with the columns track_id, uri (or path, or audio), and artist_id and genre where
        they are known. A uri is a path, relative to the catalogue, or an address that fsspec opens (s3://, https://);
        at most max_mb are read of a file. These are read with the rights of whoever runs the command: take no
        catalogue from strangers. Or CATALOGUE is a folder of audio: then a track_id is the path of a file below it,
        such as blues/blues.00000.wav, and with --genre-folders its first folder is the genre.

        \b
        Examples:
          tastewave-offline features tracks.parquet features
          tastewave-offline features genres/ features --genre-folders networks='["msd", "mtt"]'
          tastewave-offline features tracks.csv features --release releases/2026-11 --ray auto
          tastewave-offline features platform/tracks.parquet features networks=[] genre_column=style
        """,
    ),
    Job(
        name="hold-out",
        settings="offline.features.held_out:HoldOut",
        run="offline.features.held_out:run",
        arguments=(Argument("store", "STORE", FOLDER_THAT_IS), Argument("out", "OUT_FILE")),
        options=(Option("--share"), Option("--seed")),
        short="Draw tracks that no training may see.",
        help="""Write to OUT_FILE which tracks of STORE are held out: whole artists, and all files equal to theirs.

        STORE is a folder that `features` wrote. `train-user-tower`, `train-audio-encoder` and `fine-tune-tower` take
        the list (--held-out), so that how well they do on tracks that nobody has heard is measured on tracks that none
        of them has seen. OUT_FILE is CSV: track_id, and part: test (for the report) or valid (to choose steps).

        \b
        Examples:
          tastewave-offline hold-out features held-out.csv
          tastewave-offline hold-out features held-out.csv --share 0.02
        """,
    ),
    Job(
        name="convert-musicnn",
        settings="offline.musicnn.convert:ConvertMusicnn",
        run="offline.musicnn.convert:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        short="Convert the musicnn networks to ONNX.",
        help="""Convert the published musicnn checkpoints to musicnn-msd.onnx and musicnn-mtt.onnx in OUT_DIR.

        The checkpoints come from the installed musicnn package, and TensorFlow reads them.

        \b
        Example:
          tastewave-offline convert-musicnn build/networks
        """,
    ),
    Job(
        name="evaluate",
        settings="offline.evaluation.settings:Evaluate",
        run="offline.cli:evaluate",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(
            Option("--tower", "towers", "DIR", FOLDER_THAT_IS),
            Option("--split"),
            Option("--held-out", shown="FILE"),
        ),
        short="Judge user towers on held-back listens.",
        help="""Judge user towers on what was held back of LOG, against floors: simple methods that are hard to beat.

        LOG is a Parquet file of listens, a folder of them, a glob, or an fsspec URL of one of these. For every example
        the whole catalogue is ranked, by what its user heard before the moment of it. OUT_DIR gets report.html, which
        says first where a tower does not beat the best floor, and metrics.json: models.NAME.PROTOCOL.SLICE.METRIC and
        floors.NAME... A tower may be of an earlier log, if all that it was trained on was before the test.

        \b
        Examples:
          tastewave-offline evaluate listens/ report
          tastewave-offline evaluate listens/ report --tower towers/mean --tower towers/attention
          tastewave-offline evaluate ratings.parquet report --split leave-last max_examples=10000
          tastewave-offline evaluate today/ report --tower yesterday/mean
        """,
    ),
    Job(
        name="ladder",
        settings="offline.user_tower.settings:Ladder",
        run="offline.user_tower.ladder:run",
        arguments=(Argument("log", "LOG"), Argument("out", "OUT_DIR", FOLDER)),
        options=(Option("--split"), Option("--processes"), Option("--ray", shown="ADDRESS")),
        short="Measure what the form of towers costs.",
        help="""Measure on LOG what a tower of the contract's form loses against less restricted ones.

        The contract's form is a cosine in 40 dimensions of the newest 50 listens.

        Each rung is the same training with one thing changed: dot products of 64 and of 40 dimensions, cosine of 40,
        and that with a history of 50 instead of 200. So the ladder itself sets score, dim and history. OUT_DIR gets
        ladder.json.

        \b
        Example:
          tastewave-offline ladder ratings.parquet ladder --split leave-last
        """,
    ),
    Job(
        name="train-audio-encoder",
        settings="offline.audio_encoder.settings:EncoderTraining",
        run="offline.audio_encoder.train:run",
        arguments=(
            Argument("store", "STORE", FOLDER_THAT_IS),
            Argument("tower", "TOWER", FOLDER_THAT_IS),
            Argument("log", "LOG"),
            Argument("out", "OUT_DIR", FOLDER),
        ),
        options=(
            Option("--held-out", shown="FILE"),
            Option("--forgotten"),
            Option("--seed"),
            Option("--device"),
        ),
        short="Train an audio encoder: what listeners would think of a sound.",
        help="""Train an audio encoder: it hears a track, and places it where the people are who would like it.

        STORE is a folder that `features` wrote, TOWER a trained user tower, LOG the listens. The tower stays as it is,
        and places a person by what they heard before each track that they liked. FILE is what `hold-out` wrote: whole
        artists that it never hears. What is printed at the end is how well the encoder finds the listeners of their
        tracks, beside what popularity, an untrained network, and an encoder that was trained on exchanged sounds find.
        OUT_DIR gets the encoder, which `build-release --audio-encoder` takes, and these figures: report.html for
        people, metrics.json for programs. A training that was stopped begins anew.

        \b
        Examples:
          tastewave-offline train-audio-encoder features towers/mean listens/ encoders/ours --held-out held-out.csv
          tastewave-offline train-audio-encoder features towers/mean listens/ encoders/near --held-out held-out.csv \\
            loss=infonce batch=256
          tastewave-offline train-audio-encoder features towers/mean listens/ encoders/quick --held-out held-out.csv \\
            controls=false steps=1000
        """,
    ),
    Job(
        name="fine-tune-tower",
        settings="offline.user_tower.fine_tuning:FineTuning",
        run="offline.user_tower.fine_tune:run",
        arguments=(
            Argument("tower", "TOWER", FOLDER_THAT_IS),
            Argument("encoder", "ENCODER", FOLDER_THAT_IS),
            Argument("features", "STORE", FOLDER_THAT_IS),
            Argument("log", "LOG"),
            Argument("out", "OUT_DIR", FOLDER),
        ),
        options=(
            Option("--held-out", shown="FILE"),
            Option("--item-dropout"),
            Option("--forgotten"),
            Option("--processes"),
            Option("--ray", shown="ADDRESS"),
            Option("--device"),
        ),
        short="Make a user tower ready for tracks that nobody has heard.",
        help="""Fine-tune TOWER, so that tracks without a learned vector place people well by their sound.

        ENCODER is the audio encoder that was trained against TOWER; STORE, LOG and FILE are those of both trainings. In
        each step a share of the tracks (--item-dropout) enters histories as ENCODER places them. The vectors of TOWER's
        tracks stay as they are. OUT_DIR gets a tower like any other, whose manifest names TOWER and ENCODER. What is
        printed at the end is how many of the listens to come are found, before and after, for tracks with a learned
        vector and for those of FILE. A training that was stopped goes on when the command is run again.

        \b
        Example:
          tastewave-offline fine-tune-tower towers/mean encoders/ours features listens/ towers/tuned \\
            --held-out held-out.csv
        """,
    ),
    Job(
        name="seal-encoder",
        settings="offline.audio_encoder.seal:SealEncoder",
        run="offline.audio_encoder.seal:run",
        arguments=(
            Argument("network", "NETWORK", click.Path(exists=True, dir_okay=False)),
            Argument("out", "OUT_DIR", FOLDER),
        ),
        options=(Option("--name"), Option("--licence")),
        short="Make an audio encoder of any ONNX network.",
        help="""Make an audio encoder of NETWORK, an ONNX file: a folder that `build-release` takes into a release.

        NETWORK takes one window of audio as float32, (1, samples) or (1, frames, mels), and gives one vector (1, dim).
        It is tried on a window of noise.

        \b
        Examples:
          tastewave-offline seal-encoder mine.onnx encoders/mine --name "ours, May" --licence ours \\
            input.kind=waveform input.sample_rate=24000 window_s=10
          tastewave-offline seal-encoder mel.onnx encoders/mel --name mel --licence MIT unit_norm=false \\
            'input={kind="log_mel", frames=938, mel={sample_rate=16000, n_fft=1024, hop_length=512, n_mels=96}}'
        """,
    ),
    Job(
        name="embed-artists",
        settings="offline.genre.settings:EmbedArtists",
        run="offline.genre.artists:run",
        arguments=(Argument("log", "LOG"), Argument("catalogue", "CATALOGUE"), Argument("out", "OUT_DIR", FOLDER)),
        options=(Option("--forgotten"),),
        short="Place artists by who listens to them.",
        help="""Write to OUT_DIR a vector for each artist of CATALOGUE whom people of LOG listen to.

        Artists with the same listeners lie close together. CATALOGUE is CSV or Parquet with the columns track_id and
        artist_id. An artist with fewer than `least_listeners` listeners gets no vector. A genre head hears the vectors
        where the artist of an upload is known: see train-genre --artists.

        \b
        Examples:
          tastewave-offline embed-artists listens/ tracks.parquet artists
          tastewave-offline embed-artists listens/ tracks.csv artists --forgotten forgotten/ least_listeners=10
        """,
    ),
    Job(
        name="train-genre",
        settings="offline.genre.settings:TrainGenre",
        run="offline.genre.from_audio:run",
        arguments=(Argument("source", "SOURCE"), Argument("out", "OUT_DIR", FOLDER)),
        options=(
            Option("--release"),
            Option("--artists", shown="DIR"),
            Option("--corrections", shown="DIR"),
            Option("--audio-encoder", shown="DIR"),
            Option("--machine"),
        ),
        short="Train a genre head on audio of your own.",
        help="""Train a genre head on the labelled audio of SOURCE, and write it and its figures to OUT_DIR.

        SOURCE is a folder with a folder of files for each genre, or a CSV or Parquet file with the columns path (or
        uri, or audio), genre and artist_id. Genres may have any names, a track may have several, and
        `Electronic---House` is within `Electronic`. No artist is on both sides of a fold. A genre needs 10 tracks of 3
        artists. SOURCE may also be a folder that `features` wrote of such a catalogue: then no audio is heard.

        `build-release --genre-head OUT_DIR` makes a release with the head.

        \b
        Examples:
          tastewave-offline train-genre genres/ head
          tastewave-offline train-genre catalogue.parquet head repeats=5 target_accuracy=0.9
          tastewave-offline train-genre catalogue.csv head --artists artists
          tastewave-offline train-genre platform/tracks.parquet head genre_column=style
          tastewave-offline train-genre catalogue.csv head --corrections corrected
          tastewave-offline train-genre features head --audio-encoder encoders/mine
          tastewave-offline train-genre catalogue.csv head --audio-encoder encoders/mine blocks.muq=encoders/muq
          tastewave-offline train-genre catalogue.csv head 'inputs=[["msd.max_pool"], ["mtt.taggram.mean"]]'
        """,
    ),
    Job(
        name="build-release",
        settings="offline.release.settings:BuildRelease",
        run="offline.release.build:run",
        arguments=(Argument("taggrams_dir", "TAGGRAMS_DIR", FOLDER),),
        options=(
            Option("--out", shown="DIR", type=FOLDER),
            Option("--genre-head", shown="DIR"),
            Option("--networks", shown="DIR", type=FOLDER_THAT_IS),
            Option("--tower", shown="DIR", type=FOLDER_THAT_IS),
            Option("--audio-encoder", shown="DIR", type=FOLDER_THAT_IS),
        ),
        short="Write a release, with a genre head.",
        help="""Train the genre head on TAGGRAMS_DIR (train.npz, train_artists.csv) and write a release.

        With --genre-head the release gets a head that train-genre wrote, and the table of artists that it hears.
        Without that and without TAGGRAMS_DIR it gets the head of the release that ships with the project.

        Takes less than a minute. The same data give the same release id on the same machine. A release that is in the
        folder of --out is replaced.

        \b
        Examples:
          tastewave-offline build-release gtzan-musicnn-taggram --out releases/2026-11 --tower towers/mean
          tastewave-offline build-release gtzan-musicnn-taggram --out releases/2026-11 --audio-encoder encoders/mine
          tastewave-offline build-release gtzan-musicnn-taggram --out releases/seed-1 training.seed=1
          tastewave-offline build-release --out releases/2026-12 --genre-head head --tower towers/mean
          tastewave-offline build-release --out releases/2027-01 --tower towers/mean --audio-encoder encoders/mine
        """,
    ),
    Job(
        name="build-demonstration",
        settings="offline.release.settings:BuildDemonstration",
        run="offline.release.demonstration:run",
        arguments=(Argument("folder", "FOLDER", FOLDER),),
        options=(
            Option("--out", shown="DIR", type=FOLDER),
            Option("--taggrams-dir", shown="DIR", type=FOLDER_THAT_IS),
            Option("--seed"),
        ),
        short="Build the default release, taste space and all.",
        help="""Make up a platform in FOLDER, learn its taste space, and build a release with it: the default release.

        The steps are those of a platform with a catalogue and a log: features, train-user-tower, train-audio-encoder,
        train-genre, build-release. Each has a folder in FOLDER, and NAME.json there tells how long it took. A run that
        was stopped goes on when the command is run again. The same settings give the same release id on the same
        machine. The taste space is a demonstration: it is true for the made-up platform alone.

        \b
        Examples:
          tastewave-offline build-demonstration build/demonstration
          tastewave-offline build-demonstration build/demonstration --out models/releases/default
          tastewave-offline build-demonstration build/other --seed 1 tracks=200
        """,
    ),
    Job(
        name="publish-release",
        settings="offline.release.settings:PublishRelease",
        run="offline.release.publish:run",
        arguments=(Argument("folder", "DIR", FOLDER_THAT_IS), Argument("url", "URL")),
        options=(Option("--sign-key", shown="FILE", type=click.Path(exists=True, dir_okay=False)),),
        short="Copy a release to where workers read it.",
        help="""Copy the release in DIR to URL, an address that fsspec knows, and verify it there.

        The manifest is written last: a release is there as a whole or not at all, and a run that was stopped goes on
        when the command is run again. Another release at URL is not replaced. Keys and endpoints are those that the
        storage's own library looks for, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.

        \b
        Examples:
          tastewave-offline publish-release releases/2026-11 s3://models/2026-11
          tastewave-offline publish-release releases/2026-11 file:///mnt/models/2026-11
          tastewave-offline publish-release releases/2026-11 s3://models/2026-11 --sign-key release.pem
        """,
    ),
    Job(
        name="score-genre",
        settings="offline.genre.score:ScoreGenre",
        run="offline.genre.score:run",
        arguments=(Argument("file", "FILE", click.Path(exists=True, dir_okay=False)),),
        options=(Option("--release"),),
        short="Score a genre head on labelled tracks.",
        help="""Score the genre head of a release on the labelled musicnn MSD taggrams of FILE (an npz with X, Y, IDS).

        X holds the patches, (patches, 50); Y the number of each patch's genre, in the order of the head's genres; IDS
        the track of each patch. The best guess for every track counts, whether the head would abstain or not.

        \b
        Examples:
          tastewave-offline score-genre test.npz
          tastewave-offline score-genre test.npz --release releases/2026-11
        """,
    ),
    Job(
        name="dump",
        settings="offline.interactions.dump:Dump",
        run="offline.interactions.dump:run",
        arguments=(Argument("out", "OUT_DIR", FOLDER),),
        options=(
            Option("--brokers"),
            Option("--topic"),
            Option("--partition", "partitions", "N"),
            Option("--from-time", "from_time_ms", "TIME", _time_ms),
            Option("--to-time", "to_time_ms", "TIME", _time_ms),
            Option("--from-offset", shown="N"),
            Option("--to-offset", shown="N"),
            Option("--client-config", "client"),
            Option("--events-per-file"),
        ),
        short="Write the listens on Kafka to Parquet.",
        help="""Write the listens on Kafka to OUT_DIR: Parquet files, which together are an interaction log.

        Without a range the command writes all that Kafka holds when it starts. Run it again when there are new
        events, or when it was stopped in any way: it reads only what no file in OUT_DIR covers yet, so no event is lost
        and none is doubled. Times are Kafka's own, of when an event was produced. A file's name says what it covers:

        \b
          listens-TOPIC-pPARTITION-FIRST-END.parquet     offsets from FIRST to before END
          malformed-TOPIC-pPARTITION-FIRST-END.jsonl     what of them is no listens event, and why

        The topic tastewave.forgotten is dumped in the same way, to files forgotten-TOPIC-... in a folder of its own,
        which the setting `forgotten` of other jobs takes. So is tastewave.tracks.corrected, to files
        corrected-TOPIC-...: train-genre --corrections takes the folder.

        Passwords do not belong on the command line. Put them into the FILE of --client-config; for a Kafka with SASL:

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
          tastewave-offline dump forgotten --topic tastewave.forgotten
          tastewave-offline dump corrected --topic tastewave.tracks.corrected
        """,
    ),
)

for job in SYNTH_JOBS:
    synth.add_command(JobCommand(job))
for job in REPRODUCE_JOBS:
    reproduce.add_command(JobCommand(job))
for job in JOBS:
    cli.add_command(JobCommand(job))


def evaluate(settings: Evaluate) -> Outcome:
    """Evaluate towers; where none is given, one of each pooling is trained first."""
    from offline.evaluation.evaluate import run

    if not settings.towers:
        from offline.user_tower.poolings import train_poolings

        train_poolings(
            settings.towers_folder,
            log=settings.log,
            split=settings.split,
            test_share=settings.test_share,
            counting=settings.counting,
            forgotten=settings.forgotten,
        )
    return run(settings)


def main() -> None:
    """Entry point: an error of ours or of a disk is one sentence and exit status 1."""
    try:
        cli()
    except TastewaveError as error:
        said = str(error)
    except OSError as error:
        what = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
        said = f"{what} ({error.strerror or error}); mend that, and run this again"
    else:
        return
    click.echo(f"Error: {said}", err=True)
    sys.exit(1)
