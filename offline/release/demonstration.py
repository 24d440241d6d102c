"""`tastewave-offline build-demonstration`: the default release, with a taste space of a made-up platform.

These are the jobs that a platform runs on its own catalogue and log, in their order; deploy/docs/release.md tells them
one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from models.release import Release
from offline.audio_encoder import train as audio_encoder
from offline.audio_encoder.settings import EncoderTraining
from offline.features import extract, held_out
from offline.features.held_out import HoldOut
from offline.features.settings import Features
from offline.files import locked, writing
from offline.genre import from_audio
from offline.genre.settings import TrainGenre
from offline.release import build
from offline.release.chain import Chain
from offline.release.settings import BuildDemonstration, BuildRelease
from offline.synth import platform
from offline.user_tower import fine_tune
from offline.user_tower import train as user_tower
from offline.user_tower.fine_tuning import FineTuning
from offline.user_tower.settings import TowerTraining

_THREADS = 1
"""Of every training, whatever the machine has: how sums are rounded depends on it, and with it the release_id."""
_LUFS = -20.0
"""How loud workers make what they hear. The taggrams of the default head were taken of audio as loud as it was."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The release that was built.

    Attributes:
        release: verified.
        seconds: of each step, by its name.
    """

    release: Release
    seconds: dict[str, float]

    def lines(self) -> list[str]:
        """How long each step took, and the release."""
        shown = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in self.seconds.items())
        return [
            f"seconds: {shown}; together {sum(self.seconds.values()) / 60:.1f} minutes",
            f"release {self.release.release_id} in {self.release.folder}: {self.release.manifest.demonstration}",
        ]


def run(settings: BuildDemonstration) -> Outcome:
    """Make up a platform, learn its taste space, and build the release; equal settings give an equal one on a machine.

    Raises:
        SettingsError: a step cannot be done as it was asked for, or the folder cannot be written.
        ReleaseError: the release that ships with the project, which gives networks and genre head, is damaged.
    """
    made, out = Path(settings.folder), settings.out or f"{settings.folder}/release"
    world, heard, cold = f"{made}/platform", f"{made}/features", f"{made}/held-out.csv"
    tower, encoder, tuned, genre = f"{made}/tower", f"{made}/encoder", f"{made}/tuned", f"{made}/genre"
    catalogue, log = f"{world}/tracks.parquet", f"{world}/listens"
    with writing(made, ": the steps that have ended are kept"), locked(made), threadpool_limits(_THREADS):
        chain = Chain(made)
        chain.step("platform", platform.run, settings.platform(world))
        chain.step("features", extract.run, Features(
            catalogue=catalogue, out=heard, networks=(), genre_column="style",
        ))  # fmt: skip
        chain.step("hold-out", held_out.run, HoldOut(store=heard, out=cold, seed=settings.seed))
        chain.step("tower", user_tower.run, TowerTraining(
            log=log, out=tower, held_out=cold, dropouts=(0.2,), steps=settings.tower_steps, epochs=1, device="cpu",
            seed=settings.seed,
        ))  # fmt: skip
        chain.step("encoder", audio_encoder.run, EncoderTraining(
            store=heard, tower=tower, log=log, out=encoder, held_out=cold, name="of a made-up platform",
            licence="that of tastewave", batch=32, crop_s=3.0, steps=settings.encoder_steps, validate_every=40,
            device="cpu", seed=settings.seed,
        ))  # fmt: skip
        chain.step("fine-tune", fine_tune.run, FineTuning(
            tower=tower, encoder=encoder, features=heard, log=log, out=tuned, held_out=cold,
            steps=settings.fine_tuning_steps, device="cpu", seed=settings.seed,
        ))  # fmt: skip
        chain.step("genre", from_audio.run, TrainGenre(
            source=catalogue, out=genre, genre_column="style", audio_encoder=encoder,
        ))  # fmt: skip
        built = build.run(BuildRelease(  # takes a second, and what lies at `out` may be of somebody else
            out=out, tower=tuned, audio_encoder=encoder, taggrams_dir=settings.taggrams_dir,
            loudness_lufs=_LUFS if settings.taggrams_dir else None,
        ))  # fmt: skip
    return Outcome(release=built.release, seconds={name: step.seconds for name, step in chain.done.items()})
