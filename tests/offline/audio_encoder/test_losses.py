import math

import pytest
import torch

from offline.audio_encoder.losses import hinge, infonce

PEOPLE = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
LIKED = torch.tensor([[0.6, 0.8], [0.0, 1.0]])  # cosines of .6 and 1 with their people
DISLIKED = torch.tensor([[[0.8, 0.6], [0.0, 1.0]], [[1.0, 0.0], [0.6, 0.8]]])  # of .8 and 0, of 0 and .8


def test_hinge_is_the_mean_of_what_lacks_to_the_margin():
    # .2 - .6 + .8 = .4; .2 - .6 + 0 < 0; .2 - 1 + 0 < 0; .2 - 1 + .8 = 0
    everything = torch.ones(2, 2, dtype=torch.bool)
    assert hinge(PEOPLE, LIKED, DISLIKED, everything, margin=0.2).item() == pytest.approx(0.4 / 4)
    # .5 - .6 + .8 = .7; .5 - .6 < 0; .5 - 1 < 0; .5 - 1 + .8 = .3
    assert hinge(PEOPLE, LIKED, DISLIKED, everything, margin=0.5).item() == pytest.approx(1.0 / 4)


def test_what_does_not_count_is_left_out_of_the_hinge():
    counts = torch.tensor([[True, False], [False, True]])
    assert hinge(PEOPLE, LIKED, DISLIKED, counts, margin=0.5).item() == pytest.approx((0.7 + 0.3) / 2)
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert hinge(PEOPLE, LIKED, DISLIKED, nothing, margin=0.5).item() == 0.0


def test_infonce_is_the_cross_entropy_of_the_liked_track_among_what_may_be_a_negative():
    tracks = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # cosines: 1, .6, 0 with the first; 0, .8, 1
    liked = torch.tensor([0, 2])
    counts = torch.tensor([[False, True, True], [False, False, True]])
    first = -math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(1.2) + math.exp(0.0)))
    loss = infonce(PEOPLE, tracks, liked, counts, temperature=0.5)
    assert loss.item() == pytest.approx(first / 2)  # the second has no negative, which costs nothing
    assert not counts[0, 0]
