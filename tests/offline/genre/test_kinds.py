import pytest

from models.errors import SettingsError
from models.musicnn import TAGS
from offline.genre.kinds import KINDS, TagKind, tag_kinds
from offline.genre.settings import GTZAN_GENRES


def fitting(tag: str, classes: tuple[str, ...] = GTZAN_GENRES) -> set[str] | None:
    """The genres that go with a tag; None where it names no kind of music."""
    kinds = tag_kinds(KINDS, classes)
    assert kinds is not None
    kind = kinds.of_tag[TAGS["msd"].index(tag)]
    return None if kind < 0 else {name for name, fits in zip(classes, kinds.fits[kind], strict=True) if fits}


def test_tags_go_with_the_genres_that_they_name_and_electronic_music_with_none_of_the_ten():
    assert fitting("ambient") == fitting("House") == fitting("folk") == set()
    assert fitting("indie rock") == {"rock", "metal"}
    assert fitting("Hip-Hop") == {"hiphop"}
    assert fitting("jazz") == {"jazz", "classical"}
    assert fitting("female vocalists") is fitting("80s") is fitting("instrumental") is None


def test_a_head_that_knows_a_kind_may_answer_it_and_nothing_is_known_against_a_genre_that_no_kind_names():
    classes = ("electronic", "rock", "gamelan")
    assert fitting("ambient", classes) == {"electronic", "gamelan"}
    assert fitting("rock", classes) == {"rock", "gamelan"}


def test_every_genre_of_the_default_release_is_named_by_a_kind_and_no_tag_by_two():
    assert set(GTZAN_GENRES) <= {genre for kind in KINDS for genre in kind.genres}
    tags = [tag for kind in KINDS for tag in kind.tags]
    assert len(tags) == len(set(tags)) == 29


def test_no_kinds_are_no_opinion():
    assert tag_kinds((), GTZAN_GENRES) is None


def test_a_tag_that_musicnn_does_not_have_or_that_names_two_kinds_is_refused():
    with pytest.raises(SettingsError, match="no tag polka for the kind dances"):
        TagKind(name="dances", tags=("dance", "polka"), genres=())
    twice = (TagKind(name="a", tags=("folk",), genres=()), TagKind(name="b", tags=("rock", "folk"), genres=()))
    with pytest.raises(SettingsError, match="the kind b names another kind"):
        tag_kinds(twice, GTZAN_GENRES)
