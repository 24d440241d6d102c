import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from models.errors import ReleaseError, TooShort
from models.musicnn import TAGS, Musicnn

RELEASE = Path(models.__file__).parent / "releases" / "default"


@pytest.fixture(scope="module", params=["msd", "mtt"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name):
    return Musicnn(RELEASE / f"musicnn-{name}.onnx")


def ripples(frames: int) -> np.ndarray:
    """A log-mel spectrogram (0 to 5) that is a formula."""
    frame, band = np.arange(frames)[:, None], np.arange(96)[None]
    waves = 2.5 + 1.5 * np.sin(0.11 * frame + 0.23 * band) + np.cos(0.7 * frame) * np.exp(-band / 40.0)
    return waves.astype(np.float32)


# What TensorFlow computes from ripples(400) with the published checkpoints (musicnn 0.1.0): the best tags, and of the
# second patch the highest channel of each part of the network, and three of the penultimate layer.
PUBLISHED = {
    "msd": {
        "tags": {"punk": 0.36922, "metal": 0.16805, "experimental": 0.09071},
        "channels": [155, 261, 520, 624, 636, 710],
        "max_pool": [10.7884, 11.2889, 10.0014, 1.9657, 30.5628, 96.2582],
        "mean_pool": [2.44745, 9.3321, -1.63806, 0.44152, 10.01342, 23.73333],
        "penultimate": [-0.17718, -0.45711, -0.28052],
    },
    "mtt": {
        "tags": {"fast": 0.13945, "rock": 0.12015, "drums": 0.10337},
        "channels": [95, 370, 539, 593, 664, 734],
        "max_pool": [40.6651, 23.0095, 23.694, 7.3391, 11.2961, 29.6295],
        "mean_pool": [17.37375, 10.12031, 5.88691, 1.16099, 1.60205, 0.55938],
        "penultimate": [0.30169, 0.62399, 1.05017],
    },
}


def test_the_shipped_networks_answer_as_the_published_ones(name, network):
    published = PUBLISHED[name]
    features = network(ripples(400))
    best = np.argsort(-features.tags)[:3]
    assert {TAGS[name][tag]: features.tags[tag] for tag in best} == pytest.approx(published["tags"], abs=2e-5)
    channels = published["channels"]
    np.testing.assert_allclose(features.max_pool[1, channels], published["max_pool"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(features.mean_pool[1, channels], published["mean_pool"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(features.penultimate[1, [0, 7, 150]], published["penultimate"], rtol=0, atol=1e-4)


def test_every_whole_patch_is_a_row_and_the_tail_is_dropped(network):
    features = network(ripples(3 * 187 + 186))
    shapes = {name: getattr(features, name).shape for name in ("taggram", "max_pool", "mean_pool", "penultimate")}
    assert shapes == {"taggram": (3, 50), "max_pool": (3, 753), "mean_pool": (3, 753), "penultimate": (3, 200)}
    assert {getattr(features, name).dtype for name in shapes} == {np.dtype(np.float32)}
    assert features.tags.shape == (50,)
    np.testing.assert_allclose(features.tags, features.taggram.mean(axis=0))
    assert ((features.taggram > 0) & (features.taggram < 1)).all()


def test_a_patch_sounds_the_same_wherever_it_is(network):
    log_mel = ripples(187 + 60)
    overlapping, alone = network(log_mel, hop=60), network(log_mel[60:])
    assert len(overlapping.taggram) == 2
    np.testing.assert_array_equal(overlapping.taggram[1], alone.taggram[0])
    np.testing.assert_array_equal(overlapping.max_pool[1], alone.max_pool[0])
    assert np.abs(overlapping.max_pool[0] - overlapping.max_pool[1]).max() > 0.1


def test_under_three_seconds_are_too_short(network):
    with pytest.raises(TooShort, match="186 frames"):
        network(ripples(186))


def test_a_network_loads_from_bytes(network, name):
    loaded = Musicnn((RELEASE / f"musicnn-{name}.onnx").read_bytes())
    np.testing.assert_array_equal(loaded(ripples(187)).penultimate, network(ripples(187)).penultimate)


@pytest.mark.parametrize("content", [b"", b"not a network", None], ids=["empty", "text", "missing file"])
def test_what_is_not_a_network_is_a_release_error_that_says_what_to_do(content, tmp_path):
    with pytest.raises(ReleaseError, match="convert-musicnn") as error:
        Musicnn(tmp_path / "missing.onnx" if content is None else content)
    assert "\n" not in str(error.value)


def test_another_network_is_refused():
    value = onnx.helper.make_tensor_value_info("tags", onnx.TensorProto.FLOAT, ["n", 50])
    source = onnx.helper.make_tensor_value_info("log_mel", onnx.TensorProto.FLOAT, ["n", 50])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["log_mel"], ["tags"])], "other", [source], [value])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ReleaseError, match=r"this one gives \{'tags': 50\}"):
        Musicnn(model.SerializeToString())


def test_the_tag_names_are_the_published_ones_in_their_order():
    from musicnn import configuration

    assert TAGS["msd"] == tuple(configuration.MSD_LABELS)
    assert TAGS["mtt"] == tuple(configuration.MTT_LABELS)
    assert {len(set(tags)) for tags in TAGS.values()} == {50}


def test_importing_the_module_does_not_load_onnxruntime():
    check = "import sys, models.musicnn; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_loading_a_network_leaves_nothing_behind_and_tells_nobody(tmp_path: Path) -> None:
    code = "from models.release import load_release; load_release().network('msd')"
    homes = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | homes
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
    assert list(tmp_path.rglob("*")) == []


def test_want_of_memory_is_a_memory_error() -> None:
    code = """
        import resource
        import numpy as np
        from models.release import load_release
        network, log_mel = load_release().network("msd"), np.zeros((187, 96), np.float32)
        taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**20, -1))
        try:
            network(log_mel)
        except MemoryError:
            print("MemoryError")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout == "MemoryError\n"
