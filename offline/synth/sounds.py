"""Instruments, drums, room and mix-down for synthetic music, in numpy alone.

Every instrument is a function of pitch (Hz) and duration (s) that gives a mono float32 waveform at
SAMPLE_RATE with a peak near 1; every drum is a waveform made once per piece from its generator of random
numbers. A Piece puts them on a time line counted in beats and mixes them down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SAMPLE_RATE = 44_100  # Hz
Wave = NDArray[np.float32]
Instrument = Callable[[float, float], Wave]

_TABLE_SIZE = 4096


def pitch_hz(note: float) -> float:
    """Frequency of a MIDI note number (69 is A4, 440 Hz), equal temperament."""
    return 440.0 * 2.0 ** ((note - 69.0) / 12.0)


def seconds_axis(duration_s: float) -> NDArray[np.float64]:
    """Times of the samples of a waveform, in seconds."""
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def shaped(wave: NDArray[np.floating], *, attack_s: float = 0.004, release_s: float = 0.03) -> Wave:
    """The waveform with a ramp up and a ramp down, so that it neither starts nor ends in a click."""
    gain = np.ones(wave.size, np.float32)
    attack = min(round(attack_s * SAMPLE_RATE), wave.size // 2)
    release = min(round(release_s * SAMPLE_RATE), wave.size // 2)
    gain[:attack] = np.linspace(0.0, 1.0, attack, endpoint=False)
    gain[wave.size - release :] = np.linspace(1.0, 0.0, release)
    return wave.astype(np.float32) * gain


def band(wave: Wave, *, low_hz: float = 0.0, high_hz: float = SAMPLE_RATE / 2) -> Wave:
    """The waveform without what lies below low_hz and above high_hz (zero phase, 24 dB per octave)."""
    size = -(-wave.size // 4096) * 4096
    hz = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    gain = 1.0 / (1.0 + (hz / high_hz) ** 4)
    if low_hz:
        gain *= 1.0 - 1.0 / (1.0 + (hz / low_hz) ** 4)
    return np.fft.irfft(np.fft.rfft(wave, size) * gain.astype(np.float32), size)[: wave.size].astype(np.float32)


def driven(wave: Wave, *, gain: float) -> Wave:
    """The waveform through a valve stage: soft clipping, a little asymmetric, so that even harmonics appear."""
    return (np.tanh(gain * wave + 0.15) - np.tanh(0.15)).astype(np.float32)


# --- pitched instruments


@lru_cache(maxsize=512)
def _table(partials: tuple[float, ...], count: int) -> Wave:
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, complex)
    spectrum[1 : count + 1] = -1j * np.asarray(partials[:count])
    wave = np.fft.irfft(spectrum, _TABLE_SIZE)
    return (wave / np.abs(wave).max()).astype(np.float32)


def tone(
    hz: float, duration_s: float, *, partials: tuple[float, ...], vibrato_cents: float = 0.0, decay_s: float = 0.0
) -> Wave:
    """A periodic tone of the given partial amplitudes, none above the Nyquist frequency.

    Args:
        hz: fundamental frequency.
        duration_s: length.
        partials: amplitudes of the harmonics, the fundamental first.
        vibrato_cents: depth of a 5.4 Hz vibrato that fades in over the first third of a second.
        decay_s: time constant of an exponential decay; none when 0.
    """
    time = seconds_axis(duration_s)
    cycles = hz * time
    if vibrato_cents:
        depth = hz * (2.0 ** (vibrato_cents / 1200.0) - 1.0) * np.minimum(time * 3.0, 1.0)
        cycles += depth / (2.0 * np.pi * 5.4) * np.sin(2.0 * np.pi * 5.4 * time)
    count = max(1, min(len(partials), int(SAMPLE_RATE / 2 / hz) - 1))
    wave = _table(partials, count)[(cycles * _TABLE_SIZE).astype(np.int64) & (_TABLE_SIZE - 1)]
    return wave * np.exp(-time / decay_s).astype(np.float32) if decay_s else wave


SAW = tuple(1.0 / k for k in range(1, 65))
SQUARE = tuple((k % 2) / k for k in range(1, 65))
# Two resonances of a violin's body colour the saw of the bowed string; a reed has strong odd harmonics.
BOWED = tuple((1 + 1.5 * np.exp(-(((k - 3) / 2) ** 2)) + np.exp(-(((k - 9) / 3) ** 2))) / k for k in range(1, 41))
REED = tuple((1.0 if k % 2 else 0.35) / k**0.9 * np.exp(-k / 14.0) for k in range(1, 41))
ORGAN = (1.0, 0.8, 0.5, 0.4, 0.0, 0.25, 0.0, 0.3)
SUB = (1.0, 0.25, 0.12, 0.05)


def bowed(hz: float, duration_s: float) -> Wave:
    """A bowed string: body resonances, vibrato, slow attack."""
    wave = tone(hz, duration_s, partials=BOWED, vibrato_cents=14.0)
    return shaped(wave, attack_s=0.07, release_s=0.12)


def section(hz: float, duration_s: float) -> Wave:
    """A string section: three players who do not quite agree on the pitch."""
    players = [tone(hz * detune, duration_s, partials=SAW, vibrato_cents=8.0) for detune in (0.996, 1.0, 1.0043)]
    return shaped(np.sum(players, axis=0) / 2.2, attack_s=0.05, release_s=0.15)


def reed(hz: float, duration_s: float) -> Wave:
    """A saxophone-like reed with vibrato."""
    return shaped(tone(hz, duration_s, partials=REED, vibrato_cents=18.0), attack_s=0.03, release_s=0.05)


def organ(hz: float, duration_s: float) -> Wave:
    """A drawbar organ."""
    return shaped(tone(hz, duration_s, partials=ORGAN), attack_s=0.006, release_s=0.02)


def round_bass(hz: float, duration_s: float) -> Wave:
    """A soft electric bass: few harmonics, a long decay."""
    return shaped(tone(hz, duration_s, partials=SUB, decay_s=0.9), attack_s=0.006, release_s=0.04)


def synth_bass(hz: float, duration_s: float) -> Wave:
    """A square-wave bass behind a low-pass filter."""
    return shaped(band(tone(hz, duration_s, partials=SQUARE, decay_s=0.6), high_hz=900.0), release_s=0.02)


def electric_piano(hz: float, duration_s: float) -> Wave:
    """Two-operator frequency modulation after Chowning (1973): a tine over a soft fundamental."""
    time = seconds_axis(duration_s)
    body = np.sin(2 * np.pi * hz * time + 0.9 * np.exp(-time / 0.5) * np.sin(2 * np.pi * hz * time))
    tine = 0.18 * np.exp(-time / 0.12) * np.sin(2 * np.pi * 13.0 * min(hz, 1000.0) * time)
    return shaped((body + tine) * np.exp(-time / 1.4), release_s=0.08)


def string(
    hz: float, duration_s: float, *, brightness: float, decay_s: float, damping: float, position: float = 0.19
) -> Wave:
    """A plucked or struck string: the loop of Karplus and Strong (1983), all periods at once.

    In that loop each period is the last one through a loss filter. Here the filter acts on the harmonics:
    harmonic k of period p is its first amplitude times loss(k) to the power p, so that pitch and decay are
    exact and no period waits for the one before.

    Args:
        hz: pitch.
        duration_s: length.
        brightness: 0 (thumb, felt) to 1 (plectrum).
        decay_s: time constant of the fundamental.
        damping: how much faster the others die: harmonic k at 1 + damping * k**2 times that rate.
        position: where it is plucked, as a share of its length; harmonics with a node there are missing.
    """
    period = round(SAMPLE_RATE / hz)
    k = np.arange(1, min(period // 2, 56))
    amplitude = np.abs(np.sin(np.pi * k * position)) / k ** (1.8 - 1.2 * brightness)
    phase = np.random.default_rng(period).uniform(0.0, 2.0 * np.pi, k.size)
    loss = np.exp(-(1.0 + damping * k * k) / (decay_s * hz))
    periods = np.arange(int(duration_s * hz) + 2)
    spectrum = np.zeros((periods.size, period // 2 + 1), np.complex64)
    spectrum[:, 1 : k.size + 1] = amplitude * np.exp(1j * phase) * loss ** periods[:, None]
    wave = np.fft.irfft(spectrum, period, axis=1).ravel()
    places = np.arange(round(duration_s * SAMPLE_RATE)) * (hz * period / SAMPLE_RATE)
    wave = np.interp(places, np.arange(wave.size), wave)
    return shaped(wave / np.abs(wave).max(), attack_s=0.002, release_s=0.03)


steel = partial(string, brightness=0.75, decay_s=1.1, damping=0.02, position=0.13)
banjo = partial(string, brightness=1.0, decay_s=0.35, damping=0.01, position=0.09)
muted = partial(string, brightness=0.8, decay_s=0.16, damping=0.03)
piano = partial(string, brightness=0.45, decay_s=1.6, damping=0.06, position=0.125)
upright_bass = partial(string, brightness=0.2, decay_s=0.7, damping=0.08, position=0.3)
finger_bass = partial(string, brightness=0.45, decay_s=1.2, damping=0.04, position=0.22)


def crunch(hz: float, duration_s: float) -> Wave:
    """An electric guitar on the edge of breaking up."""
    note = string(hz, duration_s, brightness=0.7, decay_s=1.4, damping=0.01, position=0.15)
    return band(driven(note, gain=2.2), low_hz=80.0, high_hz=4500.0) * np.float32(0.8)


def power_chord(hz: float, duration_s: float, *, decay_s: float = 4.0) -> Wave:
    """Root, fifth and octave through one overdriven amplifier: they grind against each other."""
    strings = [
        string(hz * ratio, duration_s, brightness=0.9, decay_s=decay_s, damping=0.005, position=0.1)
        for ratio in (1.0, 1.4983, 2.0)
    ]
    return band(driven(np.sum(strings, axis=0), gain=7.0), low_hz=100.0, high_hz=5000.0) * np.float32(0.8)


palm_muted = partial(power_chord, decay_s=0.12)


def lead_guitar(hz: float, duration_s: float) -> Wave:
    """A sustained overdriven guitar."""
    note = string(hz, duration_s, brightness=0.8, decay_s=3.0, damping=0.002)
    return shaped(band(driven(note, gain=8.0), low_hz=150.0, high_hz=5000.0)) * np.float32(0.7)


# --- drums


def kick(rng: Generator, *, punch_hz: float = 150.0, floor_hz: float = 48.0, decay_s: float = 0.16) -> Wave:
    """A bass drum: a sine that falls from punch_hz to floor_hz, and the click of the beater."""
    time = seconds_axis(decay_s * 4.0)
    cycles = floor_hz * time + (punch_hz - floor_hz) * 0.03 * (1.0 - np.exp(-time / 0.03))
    click = 0.25 * rng.standard_normal(time.size) * np.exp(-time / 0.003)
    return shaped(np.sin(2 * np.pi * cycles) * np.exp(-time / decay_s) + click, attack_s=0.001)


def snare(rng: Generator, *, tone_hz: float = 185.0, rattle_s: float = 0.09) -> Wave:
    """A snare drum: two modes of the head and the rattle of the wires."""
    time = seconds_axis(rattle_s * 4.0)
    head = np.sin(2 * np.pi * tone_hz * time) + 0.6 * np.sin(2 * np.pi * 1.78 * tone_hz * time)
    wires = band(rng.standard_normal(time.size).astype(np.float32), low_hz=1200.0, high_hz=11_000.0)
    return shaped(0.55 * head * np.exp(-time / 0.05) + 0.5 * wires * np.exp(-time / rattle_s), attack_s=0.001)


def clap(rng: Generator) -> Wave:
    """Hands: four short bursts, then the room."""
    time = seconds_axis(0.3)
    bursts = sum(np.exp(-np.maximum(time - at, 0) / 0.006) * (time >= at) for at in (0.0, 0.009, 0.019, 0.028))
    noise = band(rng.standard_normal(time.size).astype(np.float32), low_hz=700.0, high_hz=4500.0)
    return shaped(noise * (0.5 * bursts + 0.4 * np.exp(-time / 0.07)), attack_s=0.001)


def cymbal(rng: Generator, *, decay_s: float, low_hz: float = 6000.0, ring: float = 0.0) -> Wave:
    """Hi-hat (short), ride (ring > 0: inharmonic modes of the bell) or crash (long, lower low_hz)."""
    time = seconds_axis(decay_s * 4.0)
    wave = 0.6 * band(rng.standard_normal(time.size).astype(np.float32), low_hz=low_hz)
    for hz in (3127.0, 4211.0, 5433.0, 6811.0):
        wave = wave + ring * np.sin(2 * np.pi * hz * time)
    return shaped(wave * np.exp(-time / decay_s), attack_s=0.001)


def rim(rng: Generator) -> Wave:
    """A stick across the rim."""
    time = seconds_axis(0.08)
    wave = np.sin(2 * np.pi * 1720.0 * time) + 0.6 * np.sin(2 * np.pi * 460.0 * time)
    return shaped((wave + 0.3 * rng.standard_normal(time.size)) * np.exp(-time / 0.014), attack_s=0.001)


# --- the time line


@dataclass
class Piece:
    """A piece of music while it is written: a stereo mix and what is sent to the room, on a time line in beats.

    Args:
        rng: decides every small accident of timing and force.
        bpm: beats per minute.
        duration_s: length of the mix; what lies beyond is left out.
        swing: where the second half of a beat begins, 0.5 (straight) to 0.67 (triplets).
        room_s: time in which the room's answer falls by 60 dB.
    """

    rng: Generator
    bpm: float
    duration_s: float
    swing: float = 0.5
    room_s: float = 0.8
    _mix: Wave = field(init=False)
    _room: Wave = field(init=False)
    _notes: dict[tuple[Instrument, float, float], Wave] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        samples = round(self.duration_s * SAMPLE_RATE)
        self._mix = np.zeros((2, samples), np.float32)
        self._room = np.zeros(samples, np.float32)

    def bars(self, beats_per_bar: int = 4) -> range:
        """Numbers of the bars that begin within the piece."""
        return range(int(np.ceil(self.duration_s * self.bpm / 60.0 / beats_per_bar)))

    def at_s(self, beat: float) -> float:
        """When a beat falls, swing applied."""
        whole, part = divmod(beat, 1.0)
        if part < 0.5:
            part *= 2.0 * self.swing
        else:
            part = self.swing + (part - 0.5) * 2.0 * (1.0 - self.swing)
        return (whole + part) * 60.0 / self.bpm

    def hit(self, wave: Wave, beat: float, *, gain: float, pan: float = 0.0, send: float = 0.08) -> None:
        """Mix a waveform in.

        Args:
            wave: what sounds.
            beat: when, counted from the start.
            gain: how loud; every hit is a little different.
            pan: -1 (left) to 1 (right).
            send: share that goes to the room.
        """
        start = round((self.at_s(beat) + abs(self.rng.normal(0.0, 0.003))) * SAMPLE_RATE)
        wave = wave[: max(0, self._room.size - start)] * np.float32(gain * self.rng.uniform(0.88, 1.0))
        self._mix[0, start : start + wave.size] += wave * np.float32(np.sqrt(0.5 - 0.5 * pan))
        self._mix[1, start : start + wave.size] += wave * np.float32(np.sqrt(0.5 + 0.5 * pan))
        self._room[start : start + wave.size] += wave * np.float32(send)

    def play(
        self,
        instrument: Instrument,
        notes: Sequence[float] | float,
        beat: float,
        beats: float,
        *,
        gain: float,
        pan: float = 0.0,
        send: float = 0.12,
        strum_s: float = 0.0,
    ) -> None:
        """Play MIDI notes together for a number of beats; strum_s (s) lies between one string and the next."""
        duration_s = round(beats * 60.0 / self.bpm, 3)
        for number, note in enumerate([notes] if isinstance(notes, int | float) else notes):
            key = (instrument, note, duration_s)
            if key not in self._notes:
                self._notes[key] = instrument(pitch_hz(note), duration_s)
            self.hit(self._notes[key], beat + number * strum_s * self.bpm / 60.0, gain=gain, pan=pan, send=send)

    def mixed_down(self) -> Wave:
        """The stereo waveform (samples x 2), room added, as loud as records are, its peak under 1."""
        mix = self._mix + self._reverberated()
        mix *= 0.22 / max(float(np.sqrt(np.mean(np.square(mix)))), 1e-9)
        mix = np.tanh(mix) * np.float32(0.97)
        fade = min(SAMPLE_RATE, mix.shape[1] // 4)
        mix[:, mix.shape[1] - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        return np.ascontiguousarray(mix.T)

    def _reverberated(self) -> Wave:
        """What the room answers: convolution with decaying noise, another for each ear."""
        time = seconds_axis(self.room_s)
        noise = self.rng.standard_normal((2, time.size)).astype(np.float32)
        noise[:, 1:] = 0.5 * (noise[:, 1:] + noise[:, :-1])  # walls take the highs
        noise *= np.exp(-6.9 * time / self.room_s) * (time > 0.012) * 0.05
        size = -(-(self._room.size + time.size) // 65_536) * 65_536
        answer = np.fft.irfft(np.fft.rfft(self._room, size) * np.fft.rfft(noise, size), size)
        return answer[:, : self._room.size].astype(np.float32)
