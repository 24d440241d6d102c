"""The job `train-genre`: labelled tracks -> a genre head in a sealed folder, which `build-release` takes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.artists import ARTIST_EMBEDDING, ARTISTS_MANIFEST, ArtistTable, load_artist_table
from models.audio_encoder import AudioEncoder, load_audio_encoder
from models.errors import SettingsError
from models.features import feature_width
from models.genre import DISTANCE
from models.release import Release, load_release
from models.sealed_folder import describe_files
from models.tagger import encoders_by_feature
from offline.features.store import is_store, open_store
from offline.files import check_replaceable, new_folder, write_json, writing
from offline.genre.catalogue import choose_classes, label_array, labels_among, read_source
from offline.genre.corrections import read_corrections
from offline.genre.head_folder import (
    GENRE_HEAD,
    HEAD_MANIFEST,
    METRICS,
    REPORT,
    HeadFolder,
    HeadManifest,
    encoder_hash,
    load_head_folder,
)
from offline.genre.hearing import HeardTracks, hear, heard_in, listening
from offline.genre.kinds import NETWORK
from offline.genre.machine import Int64, Labels
from offline.genre.report import TrackMap, map_tracks, write_report
from offline.genre.settings import Block, HeadTraining, TrainGenre
from offline.genre.train import Trained, track_features, train

LEAST_TRACKS, LEAST_ARTISTS = 10, 3
"""What a genre needs so that it stands on both sides of a fold within a fold."""
_MOST_SHOWN = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """The head that was written, and what a person should know about it."""

    folder: HeadFolder
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The notes, the figures, a line each, and the folder."""
        manifest = self.folder.manifest
        figures = [f"{name} {value:.3f}" for name, value in manifest.metrics.items()]
        return [*self.notes, *figures, f"genre head for {len(self.folder.head.classes)} genres in {self.folder.folder}"]


def run(settings: TrainGenre) -> Outcome:
    """Hear the tracks or read their features, train, and write the head, its figures and its table of artists.

    Raises:
        SettingsError: the source or the settings cannot be used, a genre has too few tracks, or `out` is a folder of
            something else.
        ReleaseError: the release, the table of artists or an audio encoder cannot be used, or the source has features
            of another front end or network.
    """
    out = Path(settings.out)
    check_replaceable(out, HEAD_MANIFEST)
    table = load_artist_table(settings.artists) if settings.artists else None
    encoders = _load_encoders(settings)
    training = _with_embeddings(_with_artists(settings, table), encoders)
    corrections = read_corrections(Path(settings.corrections)) if settings.corrections else {}
    source = Path(settings.source)
    files, unlabelled = read_source(source, genre_column=settings.genre_column, corrections=corrections)
    training = msgspec.structs.replace(training, classes=choose_classes(files, settings.classes))
    wanted = [file for file in files if labels_among(file, training.classes)]
    release = listening(load_release(settings.release), networks_of(training))
    if is_store(source):
        heard = heard_in(open_store(source, release=release), wanted, encoders=encoders)
    else:
        heard = hear(wanted, release, encoders=encoders)
    if table:
        heard = heard.with_artists(table)
    labels, artists = label_array(heard.files, training.classes), heard.artists()
    _check_sizes(training.classes, labels, artists)
    trained = train(training, tracks=heard.features, labels=labels, artists=artists, given=encoders)
    shown = map_tracks(heard.features, labels, track_features(training, heard.features), seed=training.seed)
    with writing(out), new_folder(out) as folder:
        _write(
            folder,
            trained,
            training=training,
            release=release,
            encoders=encoders,
            heard=heard,
            table=table,
            tracks=shown,
        )
    notes = [*_notes_of_source(len(files) - len(wanted), unlabelled, heard), *_notes_of_labels(trained)]
    return Outcome(folder=load_head_folder(out), notes=tuple(notes))


def _with_artists(settings: TrainGenre, table: ArtistTable | None) -> HeadTraining:
    """The settings with a block for the vectors of artists, as wide as those of the table."""
    blocks = settings.inputs
    names = [block.name for block in blocks]
    if table and ARTIST_EMBEDDING not in names:
        dim = table.manifest.dim
        blocks += (Block(name=ARTIST_EMBEDDING, width=dim, weight=settings.artist_weight * dim**-0.5),)
    elif not table and ARTIST_EMBEDDING in names:
        raise SettingsError(f"the input {ARTIST_EMBEDDING} needs a table of artists; name its folder with --artists")
    return msgspec.structs.replace(settings, inputs=blocks)


def _load_encoders(settings: TrainGenre) -> dict[str, AudioEncoder]:
    """The audio encoders that hear the tracks, by the names of their features."""
    audio_encoder = load_audio_encoder(settings.audio_encoder) if settings.audio_encoder else None
    return encoders_by_feature(
        audio_encoder, {name: load_audio_encoder(where) for name, where in settings.blocks.items()}
    )


def _with_embeddings(training: HeadTraining, encoders: Mapping[str, AudioEncoder]) -> HeadTraining:
    """The settings with a block for what each audio encoder gives."""
    names = {block.name for block in training.inputs}
    if unknown := [name for name in names - {ARTIST_EMBEDDING} if not feature_width(name) and name not in encoders]:
        raise SettingsError(
            f"nothing gives the input {min(unknown)}; see models.features for the names, and name the folder of an "
            "audio encoder in audio_encoder or blocks"
        )
    widths = {name: encoder.manifest.dim for name, encoder in encoders.items()}
    for block in training.inputs:
        if block.name in widths and block.width != widths[block.name]:
            raise SettingsError(
                f"the input {block.name} has {widths[block.name]} columns, not {block.width}; give it this width"
            )
    more = tuple(Block(name=name, width=width) for name, width in widths.items() if name not in names)
    return msgspec.structs.replace(training, inputs=(*training.inputs, *more))


def networks_of(training: HeadTraining) -> tuple[str, ...]:
    """The musicnn networks that run beside a head: those that it hears, or that its kinds of music are asked of; msd
    first, and where it needs none, since the tags come from it.

    Raises:
        SettingsError: it hears no audio.
    """
    named = {block.name.partition(".")[0] for block in training.inputs if feature_width(block.name)}
    if training.kinds:
        named.add(NETWORK)
    if all(block.name == ARTIST_EMBEDDING for block in training.inputs):
        raise SettingsError("a genre head has to hear the audio of a track; add an input such as msd.taggram.mean")
    return tuple(sorted(named)) or (NETWORK,)


def _check_sizes(classes: Sequence[str], labels: Labels, artists: Int64) -> None:
    of_class = labels if labels.ndim == 2 else labels[:, None] == np.arange(len(classes))
    small = list[str]()
    for name, of in zip(classes, of_class.T, strict=True):
        tracks, by = int(of.sum()), len(set(artists[of].tolist()))
        if tracks < LEAST_TRACKS or by < LEAST_ARTISTS:
            small.append(f"{name} has {tracks} tracks of {by} artists")
    if small:
        more = f" and {len(small) - _MOST_SHOWN} more genres have too few" if len(small) > _MOST_SHOWN else ""
        raise SettingsError(
            f"a genre needs {LEAST_TRACKS} tracks of {LEAST_ARTISTS} artists that can be heard: "
            f"{', '.join(small[:_MOST_SHOWN])}{more}; add tracks, or name the other genres in classes"
        )


def _write(
    folder: Path,
    trained: Trained,
    *,
    training: HeadTraining,
    release: Release,
    heard: HeardTracks,
    encoders: Mapping[str, AudioEncoder],
    table: ArtistTable | None,
    tracks: TrackMap,
) -> None:
    (folder / GENRE_HEAD).write_bytes(trained.head.to_bytes())
    if table:
        for name in (*table.manifest.files, ARTISTS_MANIFEST):
            shutil.copyfile(table.folder / name, folder / name)
    figures, described = _figures(trained), _describe(trained, training, heard)
    write_json(folder / METRICS, figures)
    write_report(figures, tracks, folder / REPORT, training=described)
    configuration = release.configuration
    manifest = HeadManifest(
        front_end=configuration.front_end,
        sample_rate=configuration.sample_rate,
        windows=configuration.windows,
        window_s=configuration.window_s,
        loudness_lufs=configuration.loudness_lufs,
        networks=release.network_hashes,
        encoders={name: encoder_hash(encoder.manifest) for name, encoder in encoders.items()},
        files=describe_files(folder),
        training=described,
        metrics=_rounded(trained.metrics),
    )
    write_json(folder / HEAD_MANIFEST, manifest)


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}


def _figures(trained: Trained) -> dict[str, Any]:
    """What metrics.json holds."""
    rule = trained.head.several
    thresholds = {} if rule is None else dict(zip(trained.head.classes, rule.thresholds.tolist(), strict=True))
    by_class = {
        name: _rounded(row)
        | ({"threshold": round(thresholds[name], 4)} if np.isfinite(thresholds.get(name, np.inf)) else {})
        for name, row in trained.by_class.items()
    }
    figures: dict[str, Any] = {
        "metrics": _rounded(trained.metrics),
        "classes": by_class,
        "left_out": trained.unanswerable,
    }
    figures["reliability"] = [[round(value, 4) for value in one] for one in trained.trust.reliability]
    figures["risk_coverage"] = [[round(value, 4) for value in one] for one in trained.trust.risk_coverage]
    if trained.confusion is not None:
        figures["confusion"] = trained.confusion.tolist()
    if trained.plain:
        figures["plain"] = _figures(trained.plain)
    return figures


def _describe(trained: Trained, training: HeadTraining, heard: HeardTracks) -> dict[str, Any]:
    """What the manifest says of the training."""
    digest = hashlib.sha256()
    for file, content in sorted(zip(heard.files, heard.content, strict=True), key=lambda pair: pair[1]):
        digest.update(msgspec.json.encode([content, file.labels, file.artist_id]))
    config = {name: getattr(training, name) for name in HeadTraining.__struct_fields__}
    return {
        "data_sha256": digest.hexdigest(),
        "tracks": len(heard.files),
        "artists": len(set(heard.artists().tolist())),
        "artists_known": sum(file.artist_id is not None for file in heard.files),
        "with_artist_embedding": sum(ARTIST_EMBEDDING in features for features in heard.features),
        "gamma": trained.gamma,
        "ridge": trained.ridge,
        "min_confidence": trained.head.min_confidence,
        "max_distance": trained.head.max_distance,
        "distance": DISTANCE,
        "config": msgspec.to_builtins(config),
    }


def _notes_of_source(others: int, unlabelled: int, heard: HeardTracks) -> list[str]:
    notes = list[str]()
    if unlabelled:
        notes.append(f"{unlabelled} tracks have no genre, and are left out")
    if others:
        notes.append(f"{others} tracks have none of the genres that were asked for, and are left out")
    for where, why in heard.skipped[:_MOST_SHOWN]:
        notes.append(f"skipped {where}: {why}")
    if (more := len(heard.skipped) - _MOST_SHOWN) > 0:
        notes.append(f"skipped {more} more files")
    unknown = sum(file.artist_id is None for file in heard.files)
    if unknown:
        notes.append(
            f"the artist of {unknown} of {len(heard.files)} tracks is not known: tracks of one artist may stand on "
            "both sides of a fold, and the figures read too high"
        )
    return notes


def _notes_of_labels(trained: Trained) -> list[str]:
    if not trained.unanswerable:
        never = trained.head.several is None and trained.metrics["answered"] == 0.0
        return ["the head abstains always: no confidence is right often enough; lower target_accuracy"] * never
    return [f"left out, since no threshold makes them right often enough: {', '.join(trained.unanswerable)}"]
