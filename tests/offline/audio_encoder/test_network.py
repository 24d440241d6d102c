import numpy as np
import torch

from models.mel import ENCODER, log_mel
from offline.audio_encoder.network import AudioNetwork


def network() -> AudioNetwork:
    torch.manual_seed(0)
    return AudioNetwork(mels=ENCODER.n_mels, dim=40).eval()


def sound(seed: int, *, level: float = 0.2) -> torch.Tensor:
    """The log-mel of 5 s of filtered noise."""
    rng = np.random.default_rng(seed)
    waveform = np.convolve(rng.standard_normal(80_000), rng.standard_normal(40), mode="same")
    waveform *= level / np.abs(waveform).max()
    return torch.from_numpy(log_mel(waveform.astype(np.float32), ENCODER))


def test_a_place_has_unit_norm_and_depends_on_the_sound():
    with torch.inference_mode():
        places = network()(torch.stack([sound(1), sound(2)]))
    assert places.shape == (2, 40)
    torch.testing.assert_close(places.norm(dim=1), torch.ones(2))
    assert (places[0] - places[1]).abs().max() > 1e-3


def test_a_place_does_not_depend_on_the_level():
    with torch.inference_mode():
        places = network()(torch.stack([sound(1), sound(1, level=0.02)]))
    torch.testing.assert_close(places[0], places[1], rtol=0, atol=1e-5)


def test_each_window_of_a_batch_is_heard_as_it_is_alone():
    together = torch.stack([sound(seed) for seed in range(3)])
    with torch.inference_mode():
        alone = torch.cat([network()(one[None]) for one in together])
        torch.testing.assert_close(network()(together), alone, rtol=0, atol=1e-6)


def test_every_weight_learns():
    model = network().train()
    liked, disliked = (torch.stack([sound(seed), sound(seed + 1)]) for seed in (1, 3))
    user = torch.nn.functional.normalize(torch.randn(2, 40), dim=1)
    loss = torch.relu(0.2 - (user * model(liked)).sum(1) + (user * model(disliked)).sum(1)).sum()
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in model.parameters())
