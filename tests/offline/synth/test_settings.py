import pytest

from models.errors import SettingsError
from offline.synth.music import STYLES
from offline.synth.settings import CHAIN, SynthPlatform


def test_the_styles_are_those_that_can_be_synthesised():
    assert sorted(CHAIN) == sorted(STYLES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracks": 7}, "tracks must be at least 8, got 7"),
        ({"users": 0}, "users must be at least 1, got 0"),
        ({"listens": 0}, "listens must be at least 1, got 0"),
        ({"seconds": 2.9}, "seconds must be at least 3, got 2.9"),
        ({"seconds": float("nan")}, "seconds must be at least 3, got nan"),
        ({"seconds": 121.0}, "seconds must be at most 120, got 121.0; no track is shorter"),
        ({"artists": 201}, "artists must be 8 .* to 200 .*, got 201"),
        ({"audio_format": "midi"}, "no format 'midi' can be written; choose one of wav, flac, ogg, mp3"),
        ({"repeat_share": 1.5}, "repeat_share must be a share from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        SynthPlatform(out="platform", **settings)
