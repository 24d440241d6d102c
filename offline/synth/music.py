"""Short pieces of music in clearly different styles, made from a style's name and a seed.

They stand in for a catalogue where none may be shipped: real chord progressions, bass lines, grooves and
instruments (offline.synth.sounds), every decision drawn from the seed. They are made to be music, not to please a
classifier.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import EIO
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import soundfile
from msgspec import Meta
from numpy.random import Generator

from models.errors import SettingsError
from offline.files import locked, new_file, writing
from offline.progress import progress_bar
from offline.synth.sounds import (
    SAMPLE_RATE,
    Instrument,
    Piece,
    Wave,
    band,
    banjo,
    bowed,
    clap,
    crunch,
    cymbal,
    electric_piano,
    finger_bass,
    kick,
    lead_guitar,
    muted,
    organ,
    palm_muted,
    piano,
    power_chord,
    reed,
    rim,
    round_bass,
    section,
    snare,
    steel,
    synth_bass,
    upright_bass,
)

AudioFormat = Literal["wav", "flac", "ogg", "mp3"]
FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
HARMONIC_MINOR = (0, 2, 3, 5, 7, 8, 11)
PENTATONIC = (0, 2, 4, 7, 9)
BLUES_SCALE = (0, 3, 5, 6, 7, 10)
CHORDS = {
    "": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m7": (0, 3, 7, 10),
    "9": (0, 4, 7, 10, 14), "maj9": (0, 4, 7, 11, 14), "m9": (0, 3, 7, 10, 14), "5": (0, 7, 12),
}  # fmt: skip


class SynthAudio(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `tastewave-offline synth audio`; equal settings give equal music."""

    out: Annotated[str, Meta(description="Folder to write to; made where it is missing.")]
    tracks: Annotated[int, Meta(description="How many pieces; they go round the styles.", ge=1)] = 8
    seconds: Annotated[float, Meta(description="Length of each.", ge=0.5, le=3600.0)] = 30.0
    seed: Annotated[int, Meta(description="Another seed makes other music.", ge=0)] = 0
    audio_format: Annotated[AudioFormat, Meta(description="Format of the files.")] = "flac"


@dataclass(frozen=True, kw_only=True)
class SynthesisedTracks:
    """The files that were written, in their order."""

    paths: tuple[Path, ...]

    def lines(self) -> list[str]:
        """A path a line."""
        return [str(path) for path in self.paths]


def run(settings: SynthAudio) -> SynthesisedTracks:
    """Write pieces of music to a folder.

    Raises:
        SettingsError: the folder cannot be written to.
    """
    written = write_tracks(
        Path(settings.out),
        tracks=settings.tracks,
        duration_s=settings.seconds,
        seed=settings.seed,
        audio_format=settings.audio_format,
    )
    with writing(Path(settings.out)), locked(Path(settings.out)), progress_bar() as bar:
        return SynthesisedTracks(paths=tuple(bar.track(written, total=settings.tracks, description="Synthesising")))


def synthesise(style: str, *, seed: int, duration_s: float = 30.0) -> Wave:
    """A piece of music: equal arguments give equal waveforms.

    Args:
        style: one of STYLES.
        seed: decides tempo, key, progression, melody and every accident of the performance.
        duration_s: length in seconds.

    Returns:
        Stereo waveform (samples x 2) at SAMPLE_RATE, within -1 and 1.

    Raises:
        SettingsError: no such style, or no length.
    """
    if style not in STYLES:
        raise SettingsError(f"no style {style!r} can be synthesised; choose one of {', '.join(STYLES)}")
    if duration_s <= 0:
        raise SettingsError(f"a piece of music needs a length above 0 s, got {duration_s}; ask for more")
    rng = np.random.default_rng([seed, zlib.crc32(style.encode())])
    return STYLES[style](rng, duration_s).mixed_down()


def write_tracks(
    folder: Path, *, tracks: int, duration_s: float = 30.0, seed: int = 0, audio_format: str = "flac"
) -> Iterator[Path]:
    """Write pieces of music, going round the styles, and give each path as it is written.

    Args:
        folder: where; made where missing.
        tracks: how many.
        duration_s: length of each.
        seed: seed of the first round of styles; the next round takes the next.
        audio_format: one of FORMATS.
    """
    if audio_format not in FORMATS:
        raise SettingsError(f"no format {audio_format!r} can be written; choose one of {', '.join(FORMATS)}")
    for number in range(tracks):
        turn, place = divmod(number, len(STYLES))
        style = list(STYLES)[place]
        path = folder / f"{style}-{seed + turn}.{audio_format}"
        with new_file(path) as draft:
            write_track(draft, synthesise(style, seed=seed + turn, duration_s=duration_s))
        yield path


def write_track(path: Path, waveform: Wave) -> None:
    """Write a stereo waveform (samples x 2) in the format of the path's ending, one of FORMATS.

    Raises:
        OSError: the disk does not take it.
    """
    kind, subtype = {"ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III")}.get(
        path.suffix[1:], (path.suffix[1:].upper(), "PCM_16")
    )
    try:
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, format=kind, subtype=subtype) as file:
            for start in range(0, len(waveform), SAMPLE_RATE):  # libvorbis overflows its stack on one long block
                file.write(waveform[start : start + SAMPLE_RATE])
    except soundfile.SoundFileError as error:  # libsndfile keeps nothing of the disk's error but a text
        raise OSError(EIO, str(error), str(path)) from error


# --- what the styles share


def chord(root: float, kind: str = "") -> list[float]:
    """MIDI notes of a chord over its root."""
    return [root + step for step in CHORDS[kind]]


def voiced(notes: Sequence[float], *, near: float) -> list[float]:
    """The chord's notes, each in the octave nearest to a note: chords then follow each other smoothly."""
    return sorted(note - 12 * round((note - near) / 12) for note in notes)


def nearest(note: float, notes: Sequence[float]) -> float:
    """The pitch closest to a note that is one of the given notes in some octave."""
    return min((other - 12 * round((other - note) / 12) for other in notes), key=lambda pitch: abs(pitch - note))


def motif(rng: Generator, rhythm: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """A melodic idea: (beat, beats, scale step) for each note of a rhythm, mostly by step, ending where it began."""
    steps = np.clip(np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], len(rhythm))), -4, 5)
    steps[-1] = 0
    return [(beat, beats, int(step)) for (beat, beats), step in zip(rhythm, steps, strict=True)]


def sing(
    piece: Piece,
    instrument: Instrument,
    idea: Sequence[tuple[float, float, int]],
    *,
    beat: float,
    tonic: float,
    scale: Sequence[int],
    over: Sequence[float],
    gain: float,
    pan: float = 0.0,
    send: float = 0.25,
) -> None:
    """Play a motif on the scale from a tonic; notes on a full beat move to the nearest note of the chord `over`."""
    for offset, beats, step in idea:
        octave, degree = divmod(step, len(scale))
        note = tonic + 12 * octave + scale[degree]
        if offset % 1.0 == 0.0:
            note = nearest(note, over)
        piece.play(instrument, note, beat + offset, beats, gain=gain, pan=pan, send=send)


# --- the styles


def blues(rng: Generator, duration_s: float) -> Piece:
    """A twelve-bar shuffle: boogie on two strings, walking bass, a guitar that answers itself."""
    piece = Piece(rng, bpm=rng.uniform(88, 120), duration_s=duration_s, swing=0.66, room_s=0.7)
    key = int(rng.choice([40, 43, 45]))  # E, G, A
    drum, crack, hat = kick(rng), snare(rng), cymbal(rng, decay_s=0.09, low_hz=5000.0, ring=0.06)
    rhythm = [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (1.5, 1.0), (2.5, 0.5), (3.0, 1.0)]
    call, answer = motif(rng, rhythm), motif(rng, rhythm[:4])
    for bar in piece.bars():
        root = key + (0, 5, 0, 0, 5, 5, 0, 0, 7, 5, 0, 7)[bar % 12]
        for eighth in range(8):
            beat = bar * 4 + eighth / 2
            piece.play(crunch, [root, root + (9 if eighth % 4 >= 2 else 7)], beat, 0.45, gain=0.3, pan=-0.4)
            piece.hit(hat, beat, gain=0.3 if eighth % 2 else 0.45, pan=0.3)
        for beat, step in enumerate((0, 4, 7, 9) if bar % 2 == 0 else (10, 9, 7, 4)):
            piece.play(finger_bass, root - 12 + step, bar * 4 + beat, 0.9, gain=0.8)
            piece.hit(crack if beat % 2 else drum, bar * 4 + beat, gain=0.75, send=0.15)
        if bar % 4 != 3:
            idea = call if bar % 2 == 0 else answer
            sing(piece, crunch, idea, beat=bar * 4, tonic=key + 24, scale=BLUES_SCALE, over=chord(root, "7"),
                 gain=0.5, pan=0.25)  # fmt: skip
    return piece


def classical(rng: Generator, duration_s: float) -> Piece:
    """A string quartet: four voices through cadences, the first violin sings, the viola keeps it moving."""
    piece = Piece(rng, bpm=rng.uniform(66, 96), duration_s=duration_s, room_s=2.2)
    key = int(rng.integers(55, 62))
    minor = bool(rng.random() < 0.4)
    scale = HARMONIC_MINOR if minor else MAJOR
    degrees = [(0, 5, 1, 4), (0, 3, 4, 0), (0, 2, 3, 4), (5, 1, 4, 0)]
    order = rng.permutation(len(degrees))
    themes = [
        motif(rng, [(0.0, 1.5), (1.5, 0.5), (2.0, 1.0), (3.0, 1.0)]),
        motif(rng, [(0.0, 1.0), (1.0, 0.5), (1.5, 0.5), (2.0, 2.0)]),
    ]
    for bar in piece.bars():
        degree = degrees[order[bar // 4 % len(order)]][bar % 4]
        triad = [key + scale[(degree + third) % 7] + 12 * ((degree + third) // 7) for third in (0, 2, 4)]
        inner = voiced(triad, near=key + 7)
        piece.play(bowed, nearest(key - 12, triad[:1]), bar * 4, 3.9, gain=0.55, pan=0.5, send=0.5)
        for eighth in range(8):
            note = inner[(0, 2, 1, 2)[eighth % 4]]
            piece.play(bowed, note, bar * 4 + eighth / 2, 0.5, gain=0.24, pan=0.2, send=0.5)
        piece.play(bowed, inner[-1], bar * 4, 2.0, gain=0.3, pan=-0.25, send=0.5)
        piece.play(bowed, inner[1], bar * 4 + 2, 2.0, gain=0.3, pan=-0.25, send=0.5)
        sing(piece, bowed, themes[(bar // 2) % 2], beat=bar * 4, tonic=key + 12, scale=scale, over=triad,
             gain=0.55, pan=-0.5, send=0.6)  # fmt: skip
    return piece


def country(rng: Generator, duration_s: float) -> Piece:
    """Boom-chick: alternating bass, strummed steel strings, a banjo roll, a fiddle on top."""
    piece = Piece(rng, bpm=rng.uniform(104, 132), duration_s=duration_s, room_s=0.6)
    key = int(rng.choice([43, 48, 50, 45]))  # G, C, D, A
    progression = [(0, 0, 5, 0, 0, 7, 0, 7), (0, 5, 0, 7, 0, 5, 7, 0)][int(rng.integers(2))]
    brush = band(snare(rng, rattle_s=0.04), low_hz=900.0)
    rhythm = [(0.0, 0.5), (0.5, 0.5), (1.0, 1.0), (2.0, 0.5), (2.5, 0.5), (3.0, 1.0)]
    tune = [motif(rng, rhythm), motif(rng, rhythm[2:])]
    for bar in piece.bars():
        root = key + progression[bar % 8]
        triad = chord(root + 12)
        for half in (0, 2):
            beat = bar * 4 + half
            piece.play(upright_bass, root - 12 + (7 if half else 0), beat, 1.0, gain=0.9)
            piece.play(steel, [*triad, root + 24], beat + 1, 0.8, gain=0.3, pan=-0.3, strum_s=0.012)
            piece.play(steel, [root + 24, *triad[::-1]], beat + 1.5, 0.4, gain=0.18, pan=-0.3, strum_s=0.01)
        roll = [*voiced(triad, near=root + 19), root + 24]
        for eighth in range(8):
            piece.play(banjo, roll[(0, 2, 1, 3, 0, 2, 3, 1)[eighth]], bar * 4 + eighth / 2, 0.5, gain=0.32, pan=0.45)
            piece.hit(brush, bar * 4 + eighth / 2, gain=0.3 if eighth % 4 == 2 else 0.13, pan=0.1)
        if bar % 8 != 7:
            sing(piece, bowed, tune[bar % 2], beat=bar * 4, tonic=key + 24, scale=PENTATONIC, over=triad,
                 gain=0.32, pan=0.15)  # fmt: skip
    return piece


def disco(rng: Generator, duration_s: float) -> Piece:
    """Four on the floor, octave bass, open hats between the beats, strings above a choppy guitar."""
    piece = Piece(rng, bpm=rng.uniform(112, 124), duration_s=duration_s, room_s=0.9)
    key = int(rng.integers(38, 46))
    progression = [
        ((0, "m7"), (-2, ""), (-4, "maj7"), (-5, "7")),
        ((0, "m7"), (5, "m7"), (-2, "7"), (3, "maj7")),
        ((0, "m7"), (3, "maj7"), (5, "m7"), (-2, "")),
    ][int(rng.integers(3))]
    drum, hands = kick(rng, decay_s=0.13), clap(rng)
    closed, opened = cymbal(rng, decay_s=0.025), cymbal(rng, decay_s=0.11)
    chop = rng.choice([0, 0.5, 1.0], 16, p=[0.35, 0.3, 0.35])
    line = motif(rng, [(0.0, 1.5), (1.5, 0.5), (2.0, 1.5), (3.5, 0.5)])
    for bar in piece.bars():
        step, kind = progression[bar % 4]
        root, notes = key + step, chord(key + step + 24, kind)
        for beat in range(4):
            now = bar * 4 + beat
            piece.hit(drum, now, gain=1.0, send=0.02)
            piece.hit(opened, now + 0.5, gain=0.4, pan=0.2)
            piece.play(synth_bass, root, now, 0.45, gain=0.7, send=0.02)
            piece.play(synth_bass, root + 12, now + 0.5, 0.4, gain=0.6, send=0.02)
            if beat % 2:
                piece.hit(hands, now, gain=0.6, send=0.25)
        for sixteenth in range(16):
            piece.hit(closed, bar * 4 + sixteenth / 4, gain=0.18, pan=0.2)
            if chop[sixteenth]:
                piece.play(muted, notes[1:], bar * 4 + sixteenth / 4, 0.22, gain=0.32 * chop[sixteenth], pan=-0.5)
        piece.play(section, voiced(notes, near=key + 32), bar * 4, 3.9, gain=0.1, pan=0.3, send=0.35)
        if bar % 8 >= 2:
            sing(piece, section, line, beat=bar * 4, tonic=key + 36, scale=MINOR, over=notes, gain=0.3, send=0.4)
    return piece


def hiphop(rng: Generator, duration_s: float) -> Piece:
    """A dusty loop of electric piano over a hard, swung beat and a deep bass."""
    piece = Piece(rng, bpm=rng.uniform(82, 96), duration_s=duration_s, room_s=0.5)
    key = int(rng.integers(50, 58))
    loop = [((0, "m9"), (-4, "maj7")), ((0, "m9"), (5, "m7")), ((0, "m7"), (-2, "7"))][int(rng.integers(3))]
    drum, crack = kick(rng, decay_s=0.22, floor_hz=44.0), snare(rng, tone_hz=210.0, rattle_s=0.07)
    hat, dust = cymbal(rng, decay_s=0.03), rng.standard_normal(round(duration_s * SAMPLE_RATE)).astype(np.float32)
    piece.hit(band(np.where(np.abs(dust) > 3.8, dust, 0.05 * dust).astype(np.float32), low_hz=500.0), 0, gain=0.3)
    kicks = [(0, 0.75, 2.5), (0, 1.5, 2.25), (0, 1.75, 2.5, 3.25)][int(rng.integers(3))]
    bells = motif(rng, [(0.0, 0.5), (0.75, 0.5), (1.5, 0.5), (2.5, 0.5), (3.0, 1.0)])
    late = 0.07  # beats by which every second sixteenth drags
    for bar in piece.bars():
        step, kind = loop[bar % 2]
        notes = voiced(chord(key + step, kind), near=key + 9)
        piece.play(electric_piano, notes, bar * 4, 1.9, gain=0.34, pan=-0.2, strum_s=0.015)
        piece.play(electric_piano, notes, bar * 4 + 2.5 + late, 1.2, gain=0.28, pan=-0.2, strum_s=0.01)
        for beat in kicks:
            piece.hit(drum, bar * 4 + beat, gain=1.1, send=0.02)
            piece.play(round_bass, key - 24 + step, bar * 4 + beat, 0.9, gain=0.9, send=0.0)
        for beat in (1, 3):
            piece.hit(crack, bar * 4 + beat, gain=0.95, send=0.15)
        for eighth in range(8):
            piece.hit(hat, bar * 4 + eighth / 2, gain=0.5, pan=0.15)
            if rng.random() < 0.3:
                piece.hit(hat, bar * 4 + eighth / 2 + 0.25 + late, gain=0.32, pan=0.15)
        if bar % 4 >= 2:
            sing(piece, piano, bells, beat=bar * 4, tonic=key + 24, scale=MINOR, over=notes, gain=0.25, pan=0.4)
    return piece


def jazz(rng: Generator, duration_s: float) -> Piece:
    """A swing quartet: ride cymbal, walking bass, a piano that comps, a saxophone that improvises."""
    piece = Piece(rng, bpm=rng.uniform(132, 176), duration_s=duration_s, swing=0.64, room_s=1.0)
    key = int(rng.integers(53, 61))
    changes = [
        [(2, "m9"), (7, "9"), (0, "maj9"), (9, "7")],
        [(0, "maj9"), (9, "m7"), (2, "m9"), (7, "9")],
        [(4, "m7"), (9, "7"), (2, "m7"), (7, "7")],
    ][int(rng.integers(3))]
    ride, foot = cymbal(rng, decay_s=0.28, low_hz=4500.0, ring=0.1), cymbal(rng, decay_s=0.03)
    brush = snare(rng, rattle_s=0.06)
    comps = [(0.0, 1.5), (0.5, 2.5), (1.5, 3.0), (0.0, 2.5)]
    for bar in piece.bars():
        (step, kind), (next_step, _) = changes[bar % 4], changes[(bar + 1) % 4]
        notes, root, target = chord(key + step, kind), key + step - 24, key + next_step - 24
        root, target = (note + 12 if note < 31 else note for note in (root, target))
        walk = [root, *rng.permutation([root + CHORDS[kind][1], root + 7]), target + int(rng.choice([-1, 1]))]
        for beat, note in enumerate(walk):
            piece.play(upright_bass, int(note), bar * 4 + beat, 0.95, gain=0.9, send=0.08)
            piece.hit(ride, bar * 4 + beat, gain=0.3 if beat % 2 else 0.22, pan=0.35)
            if beat % 2:
                piece.hit(ride, bar * 4 + beat + 0.5, gain=0.18, pan=0.35)
                piece.hit(foot, bar * 4 + beat, gain=0.25, pan=-0.2)
        if rng.random() < 0.4:
            piece.hit(brush, bar * 4 + float(rng.choice([1.5, 2.5, 3.5])), gain=0.2)
        for beat in comps[int(rng.integers(len(comps)))]:
            piece.play(piano, voiced(notes[1:], near=key + 4), bar * 4 + beat, 0.7, gain=0.2, pan=-0.35, send=0.2)
        if bar % 8 < 6:
            rhythm = [(eighth / 2, 0.5) for eighth in range(8) if rng.random() < 0.72] or [(0.0, 1.0)]
            sing(piece, reed, motif(rng, rhythm), beat=bar * 4, tonic=key + 12, scale=MAJOR, over=notes, gain=0.42)
    return piece


def metal(rng: Generator, duration_s: float) -> Piece:
    """Palm-muted gallops and power chords on two overdriven guitars, double bass drum, a fast solo."""
    piece = Piece(rng, bpm=rng.uniform(140, 184), duration_s=duration_s, room_s=0.6)
    key = int(rng.integers(36, 41))  # drop C to E
    drum, crack = kick(rng, punch_hz=220.0, floor_hz=55.0, decay_s=0.09), snare(rng, tone_hz=200.0, rattle_s=0.08)
    crash, hat = cymbal(rng, decay_s=0.5, low_hz=3500.0), cymbal(rng, decay_s=0.2, low_hz=4000.0)
    gallop = [(0.0, 0.5), (0.5, 0.25), (0.75, 0.25)]
    turns = rng.choice([0, 1, 3, 5, 6, 8], (2, 4))
    turns[:, 0] = 0
    run = motif(rng, [(sixteenth / 4, 0.25) for sixteenth in range(16)])
    for bar in piece.bars():
        riff = turns[bar // 2 % 2]
        if bar % 4 == 0:
            piece.hit(crash, bar * 4, gain=0.6, send=0.2)
        for beat in range(4):
            now, held = bar * 4 + beat, bar % 2 == 1 and beat >= 2
            for offset, beats in [(0.0, 1.0)] if held else gallop:
                note = key + int(riff[beat]) if held or offset == 0.0 else key
                guitar = power_chord if held else palm_muted
                for side in (-0.8, 0.8):
                    piece.play(guitar, note + 0.04 * side, now + offset, beats, gain=0.55, pan=side)
                piece.play(finger_bass, note - 12, now + offset, beats, gain=0.5, send=0.0)
            for sixteenth in range(4):
                piece.hit(drum, now + sixteenth / 4, gain=0.45, send=0.02)
            piece.hit(hat, now, gain=0.5, pan=0.3)
            if beat % 2:
                piece.hit(crack, now, gain=1.0, send=0.15)
        if bar % 8 >= 4:
            sing(piece, lead_guitar, run, beat=bar * 4, tonic=key + 36, scale=HARMONIC_MINOR, over=chord(key, "m"),
                 gain=0.3)  # fmt: skip
    return piece


def reggae(rng: Generator, duration_s: float) -> Piece:
    """One drop: nothing on the first beat, everything on the third, guitar and organ off the beat, bass in front."""
    piece = Piece(rng, bpm=rng.uniform(136, 160), duration_s=duration_s, swing=0.54, room_s=1.1)
    key = int(rng.integers(45, 53))
    progression = [
        ((0, "m"), (5, "m"), (0, "m"), (-2, "")),
        ((0, ""), (5, ""), (7, ""), (5, "")),
        ((0, "m"), (-2, ""), (-4, ""), (-2, "")),
    ][int(rng.integers(3))]
    drum, stick, hat = kick(rng, decay_s=0.2), rim(rng), cymbal(rng, decay_s=0.035)
    bass = [(0.0, 0.8, 0), (1.0, 0.8, 7), (1.5, 0.5, 7), (2.0, 0.9, 0), (3.5, 0.5, -5)]
    if rng.random() < 0.5:
        bass = [(0.5, 0.5, 0), (1.0, 0.5, 0), (2.0, 0.9, 7), (3.0, 0.5, 12), (3.5, 0.5, 7)]
    tune = motif(rng, [(0.0, 1.0), (1.5, 0.5), (2.0, 1.0), (3.5, 0.5)])
    for bar in piece.bars():
        step, kind = progression[bar // 2 % 4]
        notes = voiced(chord(key + step, kind), near=key + 15)
        for beat, beats, interval in bass:
            piece.play(round_bass, key + step - 12 + interval, bar * 4 + beat, beats, gain=1.0, send=0.0)
        for beat in (1, 3):
            piece.play(muted, notes, bar * 4 + beat, 0.35, gain=0.5, pan=-0.35, send=0.3, strum_s=0.004)
            for half in (0.0, 0.5):
                piece.play(organ, notes, bar * 4 + beat + half, 0.22, gain=0.1, pan=0.4, send=0.2)
        for eighth in range(8):
            piece.hit(hat, bar * 4 + eighth / 2, gain=0.3 if eighth % 2 == 0 else 0.15, pan=0.2)
        piece.hit(drum, bar * 4 + 2, gain=1.0, send=0.05)
        for echo in range(4 if bar % 4 == 3 else 1):  # a tape echo every fourth bar
            piece.hit(stick, bar * 4 + 2 + 0.75 * echo, gain=0.6 * 0.6**echo, pan=0.3 * (-1) ** echo, send=0.4)
        if bar % 8 >= 4:
            scale = MINOR if progression[0][1] == "m" else PENTATONIC
            sing(piece, organ, tune, beat=bar * 4, tonic=key + 24, scale=scale, over=notes, gain=0.22, send=0.4)
    return piece


STYLES: dict[str, Callable[[Generator, float], Piece]] = {
    style.__name__: style for style in (blues, classical, country, disco, hiphop, jazz, metal, reggae)
}
