import io
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import soundfile

from models.audio.loudness import made_as_loud
from models.audio.windows import WindowPlan, decode_whole, decode_windows
from models.contract import decode_taggram, encode_taggram
from models.errors import NotAudio, ReleaseError, Silent, TooLong, TooShort
from models.mel import musicnn_log_mel
from models.musicnn import TAGS
from models.release import Release, load_release
from models.tagger import Tagger, whole_features
from models.tagging import Tagging

RATE = 16000


def wav(waveform, rate=RATE):
    out = io.BytesIO()
    soundfile.write(out, waveform, rate, format="WAV", subtype="FLOAT")
    return out.getvalue()


def music(duration_s):
    """A bass line, chords and noisy beats, with a change every 5 s."""
    t = np.arange(round(duration_s * RATE)) / RATE
    root = 110 * 2 ** (np.floor(t / 5) % 5 / 12)
    chord = sum(np.sin(2 * np.pi * root * step * t) for step in (1, 2, 2.52, 3)) / 10
    beat = np.random.default_rng(1).standard_normal(len(t)) * np.exp(-(t % 0.5) * 20) / 5
    return (chord + beat).astype(np.float32)


class ChangedRelease(Release):
    """The shipped release, which hears as loud as it is unless told otherwise, with another configuration or head."""

    def __init__(self, head=None, *, loudness_lufs=msgspec.UNSET, **configuration):
        shipped = load_release()
        changed = msgspec.structs.replace(shipped.configuration, loudness_lufs=loudness_lufs, **configuration)
        super().__init__(msgspec.structs.replace(shipped.manifest, configuration=changed), shipped.folder)
        self._head = head or {}

    def genre_head(self):
        return replace(super().genre_head(), **self._head)


@pytest.fixture(scope="module")
def release():
    return ChangedRelease()


@pytest.fixture(scope="module")
def track():
    return wav(music(100))


@pytest.fixture(scope="module")
def tagging(release, track):
    return Tagger(release).tag(track)


class TestTagger:
    def test_genres_are_those_of_the_release_best_first(self, release, track):
        tagging = Tagger(ChangedRelease({"kinds": None})).tag(track)
        names, probabilities = zip(*tagging.genres, strict=True)
        assert sorted(names) == sorted(release.configuration.genres)
        assert list(probabilities) == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert tagging.confidence == probabilities[0]
        assert tagging.genre == (names[0] if tagging.status == "tagged" else None)
        assert tagging.genres_from is None

    def test_tags_are_the_means_of_the_taggram_best_first(self, release, track, tagging):
        windows = decode_windows(track, plan=WindowPlan(), sample_rate=RATE, max_duration_s=1000)
        taggram = np.concatenate(
            [release.network("msd")(musicnn_log_mel(window)).taggram for window in windows.waveforms]
        )
        assert taggram.shape == (30, 50)
        assert tagging.taggram == encode_taggram(taggram)
        assert dict(tagging.tags) == pytest.approx(dict(zip(TAGS["msd"], taggram.mean(axis=0), strict=True)), abs=1e-6)
        assert [mean for _, mean in tagging.tags] == sorted((mean for _, mean in tagging.tags), reverse=True)

    def test_each_window_is_heard_on_its_own(self, release, track, tagging):
        windows = decode_windows(track, plan=WindowPlan(), sample_rate=RATE, max_duration_s=1000)
        assert windows.starts_ms == (1000, 35000, 68000)
        network = release.network("msd")
        for number, waveform in enumerate(windows.waveforms):
            alone = network(musicnn_log_mel(waveform))
            taggram = decode_taggram(tagging.taggram)[10 * number : 10 * (number + 1)]
            assert np.array_equal(taggram, decode_taggram(encode_taggram(alone.taggram)))
            kept = tagging.windows["msd"][number]
            assert kept.start_ms == windows.starts_ms[number]
            for data, expected in (
                (kept.max_pool, alone.max_pool.mean(axis=0)),
                (kept.taggram_mean, alone.taggram.mean(axis=0)),
                (kept.taggram_spread, alone.taggram.std(axis=0)),
            ):
                assert data == expected.astype("<f2").tobytes()

    def test_a_short_track_is_one_window_with_the_patches_that_it_has(self, release):
        tagging = Tagger(release).tag(wav(music(7)))
        assert decode_taggram(tagging.taggram).shape == (2, 50)
        assert [window.start_ms for window in tagging.windows["msd"]] == [0]
        assert tagging.duration_s == 7

    def test_every_stage_is_timed(self, tagging):
        assert list(tagging.timings_ms) == ["decode", "log_mel", "network", "encoder", "genre"]
        assert all(took_ms > 0 for took_ms in tagging.timings_ms.values())

    def test_an_answer_travels_between_processes_and_is_small(self, tagging):
        data = msgspec.msgpack.encode(tagging)
        assert len(data) < 30_000
        assert msgspec.msgpack.decode(data, type=Tagging) == tagging

    def test_where_tags_contradict_the_head_the_genres_are_the_kinds_of_music_that_they_name(self, track):
        kinds = load_release().genre_head().kinds
        nothing_fits = replace(kinds, fits=np.zeros_like(kinds.fits), of_tag=kinds.of_tag.clip(0))
        tagging = Tagger(ChangedRelease({"kinds": nothing_fits})).tag(track)
        assert (tagging.status, tagging.genre, tagging.genres_from) == ("abstained", None, "tags")
        assert {name for name, _ in tagging.genres} == set(kinds.names)
        tags = dict(tagging.tags)
        electronic = ("electronic", "electronica", "electro", "House", "ambient", "chillout", "chill")
        assert dict(tagging.genres)["electronic"] == pytest.approx(max(map(tags.get, electronic)), abs=1e-6)
        assert tagging.confidence == tagging.genres[0][1] == max(probability for _, probability in tagging.genres)

    def test_the_head_decides_whether_it_abstains(self, track):
        best = Tagger(ChangedRelease({"kinds": None})).tag(track).genres[0][0]
        shipped = load_release().genre_head()
        agreeing = np.full_like(shipped.labels, shipped.classes.index(best))
        head = {"kinds": None, "labels": agreeing, "min_confidence": 0.0, "max_distance": 1e9}
        never = Tagger(ChangedRelease(head | {"min_confidence": 1.0})).tag(track)
        always = Tagger(ChangedRelease(head)).tag(track)
        far = Tagger(ChangedRelease(head | {"max_distance": 1e-9})).tag(track)
        assert (never.status, far.status, always.status) == ("abstained", "abstained", "tagged")
        assert never.genre is None
        assert far.genre is None
        assert always.genre == never.genres[0][0]
        assert never.genres == always.genres == far.genres
        outvoted = Tagger(ChangedRelease(head | {"labels": (agreeing + 1) % len(shipped.classes)})).tag(track)
        assert (outvoted.status, outvoted.genres) == ("abstained", always.genres)

    def test_a_release_may_run_both_networks_and_the_first_one_names_the_tags(self, track):
        tagging = Tagger(ChangedRelease(run=("mtt", "msd"))).tag(track)
        assert {name for name, _ in tagging.tags} == set(TAGS["mtt"])
        assert list(tagging.windows) == ["mtt", "msd"]
        assert tagging.windows["mtt"][0] != tagging.windows["msd"][0]

    def test_the_release_says_how_many_windows_are_heard(self, track):
        tagging = Tagger(ChangedRelease(windows=2, window_s=10)).tag(track)
        assert [window.start_ms for window in tagging.windows["msd"]] == [20000, 70000]
        assert decode_taggram(tagging.taggram).shape == (6, 50)

    @pytest.mark.parametrize("db", [-24, -12, 6])
    def test_with_a_set_loudness_the_level_of_a_track_changes_nothing(self, track, db):
        tagger = Tagger(ChangedRelease(loudness_lufs=-14.0))
        tagging, louder = tagger.tag(track), tagger.tag(wav(music(100) * 10 ** (db / 20)))
        assert dict(louder.tags) == pytest.approx(dict(tagging.tags), abs=1e-3)
        assert dict(louder.genres) == pytest.approx(dict(tagging.genres), abs=1e-3)

    def test_with_a_set_loudness_all_windows_are_heard_at_it_together(self, track):
        windows = decode_windows(track, plan=WindowPlan(), sample_rate=RATE, max_duration_s=1000)
        as_loud = made_as_loud(windows.waveforms, lufs=-30, sample_rate=RATE)
        release = ChangedRelease(loudness_lufs=-30.0)
        network = release.network("msd")
        taggram = np.concatenate([network(musicnn_log_mel(waveform)).taggram for waveform in as_loud])
        assert Tagger(release).tag(track).taggram == encode_taggram(taggram)

    def test_the_shipped_release_hears_tracks_at_one_loudness(self, track):
        tagger = Tagger(load_release())
        tagging, quieter = tagger.tag(track), tagger.tag(wav(music(100) / 8))
        assert dict(quieter.tags) == pytest.approx(dict(tagging.tags), abs=1e-3)
        assert (quieter.genre, quieter.genres_from) == (tagging.genre, tagging.genres_from)

    def test_without_one_a_track_is_heard_as_loud_as_it_is(self, release, track, tagging):
        assert release.configuration.loudness_lufs is msgspec.UNSET
        quieter = Tagger(release).tag(wav(music(100) / 4))
        assert max(abs(score - dict(tagging.tags)[tag]) for tag, score in quieter.tags) > 0.01

    def test_what_cannot_be_heard_is_an_error_of_its_own(self, release):
        tagger = Tagger(release, max_duration_s=20)
        for data, error in (
            (b"no audio", NotAudio),
            (wav(music(2)), TooShort),
            (wav(music(21)), TooLong),
            (wav(np.zeros(5 * RATE)), Silent),
        ):
            with pytest.raises(error):
                tagger.tag(data)
        assert decode_taggram(tagger.tag(wav(music(5))).taggram).shape == (1, 50)

    @pytest.mark.parametrize("difference", [{"front_end": "musicnn-99"}, {"sample_rate": 22050}])
    def test_a_release_for_another_front_end_is_refused(self, difference, track):
        with pytest.raises(ReleaseError, match="front end"):
            Tagger(ChangedRelease(**difference))
        with pytest.raises(ReleaseError, match="front end"):
            whole_features(ChangedRelease(**difference), track)


class TestWholeFeatures:
    def test_both_networks_hear_the_whole_file_without_windows(self, release):
        track = wav(music(40))
        arrays = whole_features(release, track)
        log_mel = musicnn_log_mel(decode_whole(track, sample_rate=RATE, max_duration_s=1000))
        widths = {"taggram": 50, "max_pool": 753, "mean_pool": 753, "penultimate": 200}
        assert {name: array.shape for name, array in arrays.items()} == {
            "log_mel": (1 + 40 * RATE // 256, 96),
            **{f"{model}_tags": (50,) for model in ("msd", "mtt")},
            **{f"{model}_{what}": (13, width) for model in ("msd", "mtt") for what, width in widths.items()},
        }
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        assert np.array_equal(arrays["log_mel"], log_mel)
        for model in ("msd", "mtt"):
            heard = release.network(model)(log_mel)
            assert np.array_equal(arrays[f"{model}_penultimate"], heard.penultimate)
            assert np.allclose(arrays[f"{model}_tags"], arrays[f"{model}_taggram"].mean(axis=0))
        assert not np.allclose(arrays["msd_max_pool"], arrays["mtt_max_pool"])

    def test_they_are_of_the_audio_at_the_loudness_of_the_release(self):
        waveform = music(8)
        heard = whole_features(ChangedRelease(loudness_lufs=-30.0), wav(waveform))
        as_loud = made_as_loud([waveform], lufs=-30, sample_rate=RATE)[0]
        assert np.allclose(heard["log_mel"], musicnn_log_mel(as_loud), atol=1e-3)

    def test_a_file_over_the_set_length_is_refused(self, release):
        with pytest.raises(TooLong):
            whole_features(release, wav(music(10)), max_duration_s=9)
