from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio_encoder import LogMelInput, load_audio_encoder
from models.mel import ENCODER, log_mel
from offline.audio_encoder.export import export
from offline.audio_encoder.network import AudioNetwork

SAMPLES = 5 * ENCODER.sample_rate


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioNetwork, Path]:
    torch.manual_seed(0)
    network = AudioNetwork(mels=ENCODER.n_mels, dim=40)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    out = tmp_path_factory.mktemp("encoders") / "ours"
    export(network, out=out, name="ours", licence="Apache-2.0", window_s=5.0, training={"log": "abc"})
    return network, out


def test_onnx_runtime_gives_the_embeddings_of_pytorch(exported):
    network, out = exported
    rng = np.random.default_rng(0)
    levels = (
        np.geomspace(1e-4, 0.5, SAMPLES),
        np.full(SAMPLES, 0.1),
        np.r_[np.zeros(SAMPLES // 2), np.ones(SAMPLES // 2)],
    )
    waveforms = [(rng.standard_normal(SAMPLES) * level).astype(np.float32) for level in levels]
    with torch.inference_mode():
        log_mels = np.stack([log_mel(one, ENCODER) for one in waveforms]).astype(np.float16)  # as a store keeps them
        wanted = network.eval()(torch.from_numpy(log_mels).float()).numpy()
    vectors = load_audio_encoder(out)(waveforms)
    np.testing.assert_allclose(vectors, wanted, rtol=0, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_the_manifest_says_what_it_hears_and_how_it_was_made(exported):
    manifest = load_audio_encoder(exported[1]).manifest
    assert manifest.input == LogMelInput(mel=ENCODER, frames=157)
    assert (manifest.dim, manifest.window_s, manifest.unit_norm) == (40, 5.0, True)
    assert (manifest.name, manifest.licence, manifest.training) == ("ours", "Apache-2.0", {"log": "abc"})


def test_the_network_does_not_tell_where_it_was_made(exported):
    content = (exported[1] / "audio_encoder.onnx").read_bytes()
    for told in (b".py", b"site-packages", str(Path(__file__).parents[3]).encode()):
        assert told not in content


def test_silence_has_a_place_too(exported):
    """A track with less sound than it needs is refused before; windows of one that passes may be silent."""
    place = load_audio_encoder(exported[1])([np.zeros(SAMPLES, np.float32)])[0]
    assert np.linalg.norm(place) == pytest.approx(1.0, abs=1e-5)
