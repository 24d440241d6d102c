"""The audio encoder's network, in PyTorch: a log-mel spectrogram goes in, a place in taste space comes out.

One network with one set of weights hears the tracks that a person likes and those that the person does not (the
siamese network of Chen & Liang, ISMIR 2020 late-breaking). It takes the spectrogram of models.mel.log_mel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (24, 48, 96, 128)
"""Channels after each convolution, all of which halve frames and mels: what fits into a few milliseconds."""


class AudioNetwork(nn.Module):
    """Spectrograms of windows to places in taste space. How loud a window is does not change where it is.

        network = AudioNetwork(mels=ENCODER.n_mels, dim=40)
        network(torch.from_numpy(log_mel(waveform, ENCODER))[None]).shape  # (1, 40)

    Args:
        mels: bands of the spectrogram, at least 16.
        dim: of taste space.
    """

    def __init__(self, *, mels: int, dim: int) -> None:
        super().__init__()
        self.bands = nn.BatchNorm1d(mels)
        layers, channels = list[nn.Module](), 1
        for width in _WIDTHS:
            layers += _heard(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False))
            channels, mels = width, (mels + 1) // 2
        layers += _heard(nn.Conv2d(channels, channels, (1, mels), bias=False))
        self.layers = nn.Sequential(*layers)
        self.leave = nn.Linear(2 * channels, dim)

    def forward(self, log_mels: Tensor) -> Tensor:
        """Hear windows.

        Args:
            log_mels: (n, frames, mels) dB.

        Returns:
            (n, dim), of unit norm.
        """
        relative = log_mels - log_mels.mean(dim=(1, 2), keepdim=True)
        heard = self.layers(self.bands(relative.transpose(1, 2)).transpose(1, 2)[:, None])[..., 0]
        return functional.normalize(self.leave(torch.cat([heard.mean(dim=2), heard.amax(dim=2)], dim=1)), dim=1)


def _heard(convolution: nn.Conv2d) -> list[nn.Module]:
    """A convolution without a bias, and what follows it: the normalisation has one."""
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]
