"""`tastewave-offline build-demonstration`: the default release, with a taste space of a made-up platform.

These are the jobs that a platform runs on its own catalogue and log, in their order; deploy/docs/release.md tells them
one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from models.release import Release, load_release
from offline.audio_encoder import train as audio_encoder
from offline.audio_encoder.settings import EncoderTraining
from offline.features import extract
from offline.features.settings import Features
from offline.files import locked, writing
from offline.genre import from_audio
from offline.genre.settings import Block, TrainGenre
from offline.release import build
from offline.release.chain import Chain
from offline.release.settings import BuildDemonstration, BuildRelease
from offline.synth import platform
from offline.user_tower import train as user_tower
from offline.user_tower.settings import TowerTraining

_THREADS = 2
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
    made = Path(settings.folder)
    world, heard, tower, encoder, genre = (
        str(made / name) for name in ("platform", "features", "tower", "encoder", "genre")
    )
    catalogue, listens, out = f"{world}/tracks.parquet", f"{world}/listens", settings.out or str(made / "release")
    with writing(made, ": the steps that have ended are kept"), locked(made), threadpool_limits(_THREADS):
        chain = Chain(made)
        chain.step("platform", platform.run, settings.platform(world), out=world)
        chain.step("features", extract.run, Features(
            catalogue=catalogue, out=heard, networks=(), genre_column="style",
        ), out=heard)  # fmt: skip
        chain.step("tower", user_tower.run, TowerTraining(
            log=listens, out=tower, dropouts=(0.2,), steps=settings.tower_steps, epochs=1, device="cpu",
            seed=settings.seed,
        ), out=tower)  # fmt: skip
        chain.step("encoder", audio_encoder.run, EncoderTraining(
            store=heard, tower=tower, log=listens, out=encoder, name="demonstration encoder", licence="as tastewave",
            batch=64, crop_s=5.0, steps=settings.encoder_steps, validate_every=50, device="cpu", seed=settings.seed,
        ), out=encoder)  # fmt: skip
        chain.step("genre", from_audio.run, TrainGenre(
            source=catalogue, out=genre, genre_column="style", audio_encoder=encoder,
            inputs=(Block(name="msd.taggram.mean"), Block(name="embedding", width=40)),
        ), out=genre)  # fmt: skip
        chain.step("release", build.run, BuildRelease(
            out=out, tower=tower, audio_encoder=encoder, taggrams_dir=settings.taggrams_dir,
            loudness_lufs=_LUFS if settings.taggrams_dir else None,
        ), out=out)  # fmt: skip
    return Outcome(release=load_release(out), seconds={name: step.seconds for name, step in chain.done.items()})
