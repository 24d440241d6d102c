"""A run of the protocol: hear the set, embed it, judge the recipes, say what that means. Each step can be resumed.

    OUT/protocol.json       what the folder is
    OUT/tower/              the user tower, where none was named
    OUT/heard/, patches/    the set's features, as workers hear tracks and as the reference recipe does
    OUT/embeddings/KEY/     where each encoder places the tracks: preference/, random/, permuted-000/, ...
    OUT/judged/KEY/         on which tracks each recipe is right
    OUT/reference/KEY/      likewise, of the reference recipe on each split
    OUT/results/            results.json and report.md

A KEY is a hash of all that what is in its folder depends on, so that nothing is taken for what it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import SettingsError
from offline.features import extract
from offline.features.settings import Features
from offline.features.store import FeatureStore, open_store
from offline.files import check_replaceable, locked, new_file, write_json, writing
from offline.genre.catalogue import labelled_tracks
from offline.genre.hearing import heard_in
from offline.genre.settings import HeadTraining
from offline.progress import progress_bar
from offline.reproduce import report
from offline.reproduce.embed import FACTS, VECTORS, Embedder
from offline.reproduce.judge import MAX_POOL, Judge, Judged, Recipe, read_judged
from offline.reproduce.labelled_set import LabelledSet
from offline.reproduce.reference import HOP_FRAMES, NETWORK, reference_guesses
from offline.reproduce.results import ALONE, AUDIO, NOISE, OF_RANDOM, WITH, Results, comparisons, rows_of
from offline.reproduce.settings import Protocol
from offline.reproduce.significance import Draws
from offline.reproduce.sources import PREFERENCE, RANDOM, Source, open_source
from offline.spread import seal, spread

MARKER, CATALOGUE = "protocol.json", "catalogue.parquet"
RESULTS, RESULTS_FILE, REPORT_FILE = "results", "results.json", "report.md"

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_HOW_TO_RUN = {"out", "force", "processes", "ray"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that ended.

    Attributes:
        folder: of results.json and report.md.
        results: what results.json holds.
    """

    folder: Path
    results: Results

    def lines(self) -> list[str]:
        """The table, what it says, and where it is."""
        return [*report.shown(self.results), f"{self.folder}: {RESULTS_FILE} and {REPORT_FILE}"]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeardSet:
    """The tracks of a set that could be heard, in the order of the store.

    Attributes:
        store: of their features.
        ids: of the tracks.
        genres: the classes.
        labels: (tracks,) class numbers.
        artists: (tracks,) numbers that no fold divides.
        max_pool: (tracks, 753).
        key: hash of all of it.
    """

    store: FeatureStore
    ids: tuple[str, ...]
    genres: tuple[str, ...]
    labels: Int64
    artists: Int64
    max_pool: Float32
    key: str

    def rows(self, tracks: frozenset[str]) -> Int64:
        """The rows of tracks, without those that could not be heard."""
        return np.array([row for row, name in enumerate(self.ids) if name in tracks], np.int64)


def run(settings: Protocol, labelled: LabelledSet) -> Outcome:
    """Run the protocol; a run that was stopped goes on where it was.

    Raises:
        SettingsError: the source of the embedding cannot be used, or is a demonstration and not forced; the set has too
            few artists; `out` is a folder of something else, or cannot be written.
        ReleaseError: a release, store or tower cannot be used.
        SpreadFailed: the processes die, whatever they do.
    """
    out = Path(settings.out).absolute()
    check_replaceable(out, MARKER)
    with writing(out, ": what is done stays"), locked(out):
        _claim(out, labelled.name)
        source = open_source(settings)
        heard = hear(settings, labelled, source, out)
        embeddings, encoders = embed(settings, labelled, source, heard, out)
        judged = judge(settings, labelled, source, heard, embeddings, out=out)
        reference = judge_reference(settings, labelled, heard, out)
        results = _results(settings, labelled, source, heard, judged=judged, reference=reference, encoders=encoders)
        seal(
            out / RESULTS,
            {
                RESULTS_FILE: msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n",
                REPORT_FILE: report.markdown(results).encode(),
            },
        )
    return Outcome(folder=out / RESULTS, results=results)


def _claim(out: Path, name: str) -> None:
    """Mark a folder as that of a run on a set; refuse one of another set."""
    with new_file(out / MARKER) as draft:
        write_json(draft, {"set": name})
        if (out / MARKER).exists() and (out / MARKER).read_bytes() != draft.read_bytes():
            raise SettingsError(f"{out} holds a run on another set than {name}; name another folder with --out")


def hear(settings: Protocol, labelled: LabelledSet, source: Source, out: Path) -> HeardSet:
    """Compute the features of the set as workers hear it, and max_pool of each patch as the reference recipe does."""
    with new_file(out / CATALOGUE) as draft:
        labelled.tracks.write_parquet(draft)
    shared: dict[str, Any] = {
        "catalogue": str(out / CATALOGUE), "networks": (NETWORK,), "processes": settings.processes, "ray": settings.ray,
    }  # fmt: skip
    extract.run(Features(**shared, out=str(out / "heard"), release=settings.release, mel=source.mel))
    extract.run(
        Features(
            **shared, out=str(out / "patches"), patches=True, patch_hop=HOP_FRAMES, log_mels=False,
            loudness_lufs="as_is",
        )
    )  # fmt: skip
    store, patches = open_store(out / "heard", mel=source.mel), open_store(out / "patches")
    if not len(store):
        raise SettingsError(f"none of the tracks of {labelled.name} can be heard; {out / 'heard'} says why")
    if lost := [track.track_id for track in store if track.track_id not in patches]:
        raise SettingsError(f"{lost[0]} was heard once and not again; {out / 'patches'} says why: run this again")
    heard, tracks = heard_in(store, labelled_tracks(store), encoders={}), list(store)
    artists, of_track = heard.artists(), [str(track.genre) for track in tracks]
    genres = tuple(sorted(set(of_track)))
    labels = np.array([genres.index(genre) for genre in of_track], np.int64)
    _check(settings, labelled, genres, labels, artists)
    return HeardSet(
        store=store,
        ids=tuple(track.track_id for track in tracks),
        genres=genres,
        labels=labels,
        artists=artists,
        max_pool=np.stack([features[MAX_POOL] for features in heard.features]),
        key=_key(store.manifest, [(track.track_id, track.content, track.genre) for track in tracks], artists.tolist()),
    )


def _check(settings: Protocol, labelled: LabelledSet, genres: Sequence[str], labels: Int64, artists: Int64) -> None:
    if (many := len(set(artists.tolist()))) < 2 * settings.folds:
        raise SettingsError(
            f"{many} artists are too few for {settings.folds} folds; set folds to at most {max(2, many // 2)}"
        )
    for number, genre in enumerate(genres):
        if len(set(artists[labels == number].tolist())) < 2:
            raise SettingsError(f"all tracks of {genre} in {labelled.name} are of one artist; a fold needs another")


def embed(
    settings: Protocol, labelled: LabelledSet, source: Source, heard: HeardSet, out: Path
) -> tuple[dict[str, Float32], dict[str, Any]]:
    """Where each encoder places the tracks, by the encoder's name, and what is known of the encoders."""
    folder = out / "embeddings" / _key(source.facts, source.mel, settings.seed, heard.key)
    folder.mkdir(parents=True, exist_ok=True)
    uris = dict(labelled.tracks.select("track_id", "uri").iter_rows())
    embedder = Embedder(
        source=source,
        heard=str(heard.store.folder),
        uris=tuple(uris[name] for name in heard.ids),
        seed=settings.seed,
    )
    names = source.embeddings(settings.permutations)
    _spread(settings, embedder, {name: [name] for name in names}, folder, "Encoders")
    vectors = {name: np.load(folder / name / VECTORS, allow_pickle=False) for name in names}
    return vectors, {name: msgspec.json.decode((folder / name / FACTS).read_bytes()) for name in names}


def judge(
    settings: Protocol,
    labelled: LabelledSet,
    source: Source,
    heard: HeardSet,
    embeddings: Mapping[str, Float32],
    *,
    out: Path,
) -> dict[str, Judged]:
    """On which tracks each recipe is right, by its name."""
    judging = Judge(
        training=HeadTraining(
            classes=heard.genres, machine=settings.machine, gammas=settings.gammas, ridges=settings.ridges,
            folds=settings.folds, repeats=settings.repeats, kinds=(), seed=settings.seed,
        ),
        max_pool=heard.max_pool,
        labels=heard.labels,
        artists=heard.artists,
        splits=tuple((heard.rows(split.train), heard.rows(split.test)) for split in labelled.splits),
    )  # fmt: skip
    preference = embeddings[PREFERENCE]
    noise = np.random.default_rng(settings.seed).standard_normal(preference.shape).astype(np.float32)
    beside = {WITH: preference, OF_RANDOM: embeddings[RANDOM], NOISE: noise} | {
        name: vectors for name, vectors in embeddings.items() if name not in (PREFERENCE, RANDOM)
    }
    recipes = [
        Recipe(name=AUDIO, audio=True, embedding=None),
        Recipe(name=ALONE, audio=False, embedding=preference),
        *(Recipe(name=name, audio=True, embedding=vectors) for name, vectors in beside.items()),
    ]
    placed = {name: hashlib.sha256(embeddings[name].tobytes()).hexdigest() for name in (PREFERENCE, RANDOM)}
    ids = [[sorted(split.train), sorted(split.test)] for split in labelled.splits]
    key = _key(source.facts, judging.training, ids, heard.key, placed[PREFERENCE], placed[RANDOM])
    folder = out / "judged" / key
    folder.mkdir(parents=True, exist_ok=True)
    _spread(settings, judging, {recipe.name: [recipe] for recipe in recipes}, folder, "Recipes")
    return {recipe.name: read_judged(folder / recipe.name) for recipe in recipes}


def judge_reference(settings: Protocol, labelled: LabelledSet, heard: HeardSet, out: Path) -> list[tuple[Bool, int]]:
    """For each split, (tracks,) whether the reference recipe is right, and of how many patches it learned from one."""
    store, judged = open_store(out / "patches"), list[tuple[Bool, int]]()
    with progress_bar() as bar:
        for split in bar.track(labelled.splits, description="The reference recipe, splits"):
            train, test = heard.rows(split.train), heard.rows(split.test)
            key = _key(store.manifest, heard.key, train.tolist(), test.tolist(), settings.reference_patches)
            folder = out / "reference" / key
            if not folder.exists():
                guesses, every = reference_guesses(
                    store, [heard.ids[row] for row in train], heard.labels[train], [heard.ids[row] for row in test],
                    most_patches=settings.reference_patches,
                )  # fmt: skip
                seal(folder, {"guesses.json": msgspec.json.encode([guesses.tolist(), every])})
            told, every = msgspec.json.decode((folder / "guesses.json").read_bytes())
            right = np.zeros(len(heard.ids), bool)
            right[test] = np.array(told) == heard.labels[test]
            judged.append((right, every))
    return judged


def _results(
    settings: Protocol,
    labelled: LabelledSet,
    source: Source,
    heard: HeardSet,
    *,
    judged: Mapping[str, Judged],
    reference: Sequence[tuple[Bool, int]],
    encoders: dict[str, Any],
) -> Results:
    draws = Draws(heard.artists, seeds=settings.repeats, replicates=settings.replicates, seed=settings.seed)
    asked = [np.isin(np.arange(len(heard.ids)), heard.rows(split.test)) for split in labelled.splits]
    notes = [*labelled.notes]
    if lost := len(labelled.tracks) - len(heard.ids):
        notes.append(f"{lost} tracks cannot be heard, and are left out; heard/failures.csv names them")
    for split, (_, every) in zip(labelled.splits, reference, strict=True):
        if every > 1:
            notes.append(f"on the split {split.name}, the reference recipe learns from one patch in {every}")
    return Results(
        set=labelled.name,
        demonstration=source.caveat,
        notes=tuple(notes),
        tracks=len(heard.ids),
        artists=len(set(heard.artists.tolist())),
        genres=heard.genres,
        published_split=next(split.name for split in labelled.splits if split.published),
        published=labelled.published,
        rows=rows_of(labelled, judged, [right for right, _ in reference], draws, asked),
        **comparisons(labelled, judged, draws, asked),
        source={name: fact for name, fact in source.facts.items() if name != "store"},
        encoders=encoders,
        settings={name: value for name, value in msgspec.to_builtins(settings).items() if name not in _HOW_TO_RUN},
    )


def _spread(settings: Protocol, work: Any, shards: Mapping[str, Sequence[Any]], out: Path, label: str) -> None:
    with progress_bar() as bar:
        lost = spread(work, shards, out=out, progress=bar, label=label, processes=settings.processes, ray=settings.ray)
    if lost:
        raise SettingsError(
            f"the processes that made {lost[0]} in {out} died; look for a lack of memory (fewer processes need less), "
            "and run this again: what is done stays"
        )


def _key(*facts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:12]
