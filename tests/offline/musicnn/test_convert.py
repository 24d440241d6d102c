import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner

from models.errors import SettingsError
from models.mel import MUSICNN, PATCH_FRAMES, musicnn_log_mel, patches
from models.musicnn import Musicnn
from models.release import DEFAULT
from offline.cli import cli
from offline.musicnn import convert
from offline.synth.music import synthesise
from offline.synth.sounds import SAMPLE_RATE


def music(style: str, *, seconds: float) -> np.ndarray:
    mono = synthesise(style, seed=3, duration_s=seconds).mean(axis=1)
    return soxr.resample(mono, SAMPLE_RATE, MUSICNN.sample_rate).astype(np.float32)


@pytest.fixture(scope="module")
def passages() -> dict[str, np.ndarray]:
    """Waveforms of two patches each."""
    strings, band = music("classical", seconds=6.5), music("blues", seconds=6.5)
    return {
        "strings": strings,
        "band": band,
        "quiet": strings * np.float32(1e-3),
        "nearly silent": strings * np.float32(1e-6),
        "full scale": np.clip(band * np.float32(50.0), -1.0, 1.0),
    }


@pytest.fixture(scope="module")
def extractor():
    """musicnn.extractor as it is published; importing it switches TensorFlow to graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_USE_LEGACY_KERAS", "1")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        from musicnn import extractor

        yield extractor


@pytest.fixture(scope="module", params=convert.NETWORKS)
def published(request, extractor):
    """A published network: its own code builds it, TensorFlow restores its checkpoint and runs it."""
    tf, folder = extractor.tf, convert.CHECKPOINTS[request.param]
    with tf.Graph().as_default() as graph, tf.name_scope("model"), warnings.catch_warnings(action="ignore"):
        batch = tf.compat.v1.placeholder(tf.float32, [None, PATCH_FRAMES, MUSICNN.n_mels])
        is_training = tf.compat.v1.placeholder(tf.bool)
        logits, *_, mean_pool, max_pool, penultimate = extractor.models.define_model(batch, is_training, folder, 50)
        outputs = [tf.nn.sigmoid(logits), max_pool, mean_pool, penultimate]
        session = tf.compat.v1.Session(graph=graph)
        tf.compat.v1.train.Saver().restore(session, f"{Path(extractor.__file__).parent / folder}/")

    def run(log_mel: np.ndarray) -> list[np.ndarray]:
        return session.run(outputs, {batch: patches(log_mel), is_training: False})

    with session:
        yield request.param, run


@pytest.mark.tensorflow
def test_the_converted_network_answers_as_the_published_one(published, passages):
    name, run = published
    network = Musicnn(DEFAULT / convert.NETWORKS[name])
    worst, highest = np.zeros(4), 0.0
    for waveform in passages.values():
        log_mel = musicnn_log_mel(waveform)
        theirs, ours = run(log_mel), network(log_mel)
        pairs = zip((ours.taggram, ours.max_pool, ours.mean_pool, ours.penultimate), theirs, strict=True)
        worst = np.maximum(worst, [np.abs(mine - reference).max() for mine, reference in pairs])
        highest = max(highest, np.abs(theirs[1]).max())
    assert highest > 80.0  # the passages reach where float32 has the fewest digits
    assert (worst <= [1e-5, 1e-3, 1e-4, 5e-5]).all(), worst


@pytest.mark.tensorflow
def test_the_log_mel_is_what_the_published_extractor_feeds_its_network(extractor, passages, tmp_path, monkeypatch):
    class Numpy1(np.ndarray):
        """A spectrogram on which NumPy >= 2 computes as NumPy 1: 10000 * float16 is float32."""

        def astype(self, dtype):
            return np.asarray(self).astype(dtype).astype(np.float32)

    melspectrogram = extractor.librosa.feature.melspectrogram
    monkeypatch.setattr(
        extractor.librosa.feature, "melspectrogram", lambda **arguments: melspectrogram(**arguments).view(Numpy1)
    )
    for waveform in passages.values():
        soundfile.write(tmp_path / "passage.wav", waveform, MUSICNN.sample_rate, subtype="FLOAT")
        batch, spectrogram = extractor.batch_data(tmp_path / "passage.wav", PATCH_FRAMES, PATCH_FRAMES)
        ours = musicnn_log_mel(waveform)
        np.testing.assert_allclose(ours, spectrogram, rtol=0, atol=5e-4)  # a step of float16
        assert np.mean(ours != spectrogram) <= 1e-3  # where sums of another order round to the other side
        assert patches(ours).shape == batch.shape == (2, PATCH_FRAMES, MUSICNN.n_mels)


@pytest.mark.tensorflow
def test_the_shipped_networks_are_what_the_command_writes(tmp_path):
    result = CliRunner().invoke(cli, ["convert-musicnn", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["musicnn-msd.onnx", "musicnn-mtt.onnx"]
    for name in ("musicnn-msd.onnx", "musicnn-mtt.onnx"):
        written = (tmp_path / name).read_bytes()
        assert written == (DEFAULT / name).read_bytes()
        assert f"sha256 {hashlib.sha256(written).hexdigest()}" in result.output


@pytest.mark.parametrize("missing", ["musicnn", "tensorflow"])
def test_without_musicnn_or_tensorflow_the_converter_says_what_to_install(missing, tmp_path, monkeypatch):
    find_spec = convert.find_spec
    monkeypatch.setattr(convert, "find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(SettingsError, match="install the offline and musicnn sets"):
        convert.run(convert.ConvertMusicnn(out=str(tmp_path)))
