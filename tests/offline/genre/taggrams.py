"""Made-up taggrams of three genres, in memory and as the files that training and scoring read."""

from pathlib import Path

import numpy as np

from models.features import taggram_features
from offline.genre.settings import GenreTraining
from offline.genre.train import track_features

CONFIG = GenreTraining(
    classes=("folk", "metal", "ska"),
    gammas=(0.1, 0.5),
    ridges=(0.1, 1.0),
    folds=3,
    inner_folds=2,
    repeats=2,
    kinds=(),  # which tags are strongest is chance here
)


def platform(**changes):
    """The made-up tracks as training takes them."""
    taggrams, labels, artists = made_up(**changes)
    return {"tracks": heard(taggrams), "labels": labels, "artists": artists}


def heard(taggrams):
    return [taggram_features("msd", taggram) for taggram in taggrams]


def made_up(*, artists_each: int = 5, tracks_each: int = 3, patches: int = 9, seed: int = 0):
    """Taggrams of three genres: every genre raises some tags, every artist a tag of its own."""
    rng = np.random.default_rng(seed)
    taggrams, labels, artists = [], [], []
    for label in range(3):
        for artist in range(artists_each):
            for _ in range(tracks_each):
                logits = rng.normal(-4.0, 0.7, (patches, 50))
                logits[:, 10 * label : 10 * label + 6] += rng.uniform(0.0, 2.2)
                logits[:, 30 + 5 * label + artist % 5] += 3.0
                taggrams.append((1.0 / (1.0 + np.exp(-logits))).astype(np.float32))
                labels.append(label)
                artists.append(100 * label + artist)
    return taggrams, np.array(labels), np.array(artists)


def data(**changes):
    taggrams, labels, artists = made_up(**changes)
    return track_features(CONFIG, heard(taggrams)), labels, artists


def write_platform(folder: Path, **changes) -> Path:
    taggrams, labels, artists = made_up(**changes)
    names = [f"{CONFIG.classes[label]}.{index:05d}" for index, label in enumerate(labels)]
    patches = len(taggrams[0])
    np.savez(
        folder / "train.npz",
        X=np.concatenate(taggrams),
        Y=np.repeat(labels, patches),
        IDS=np.repeat([f"{name.split('.')[0]}/{name}.au" for name in names], patches),
    )
    lines = [f'{name},"artist {artist}"' for name, artist in zip(names, artists, strict=True)]
    (folder / "train_artists.csv").write_text("\n".join(["track,artist", *lines]) + "\n")
    return folder
