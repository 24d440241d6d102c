import numpy as np
import pytest

from offline.synth.catalogue import style_centres


def test_neighbouring_styles_are_alike_and_others_are_not():
    cosines = style_centres() @ style_centres().T
    assert np.diag(cosines, 1).min() > 0.6
    assert np.diag(cosines, 3).max() == pytest.approx(0.0)
