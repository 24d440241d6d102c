"""The kinds of music that the tags of musicnn's MSD network name, and the genres that go with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from models.errors import SettingsError
from models.musicnn import TAGS
from models.tag_kinds import TagKinds

NETWORK = "msd"


class TagKind(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A kind of music.

        TagKind(name="folk", tags=("folk",), genres=("folk",))

    Settings and manifests have a kind as an array: ["folk", ["folk"], ["folk"]].

    Attributes:
        name: of the kind, for `genres` of an answer.
        tags: those that name it, of models.musicnn.TAGS["msd"].
        genres: what music of this kind may be called.

    Raises:
        SettingsError: the network has no such tag.
    """

    name: Annotated[str, Meta(min_length=1)]
    tags: Annotated[tuple[str, ...], Meta(min_length=1)]
    genres: tuple[str, ...]

    def __post_init__(self) -> None:
        if unknown := set(self.tags) - set(TAGS[NETWORK]):
            raise SettingsError(f"musicnn has no tag {min(unknown)} for the kind {self.name}; see models.musicnn.TAGS")


# fmt: off
KINDS = (
    TagKind(name="rock", genres=("rock", "metal"), tags=(
        "rock", "alternative", "alternative rock", "classic rock", "hard rock", "indie", "indie rock",
        "Progressive rock", "punk",
    )),
    TagKind(name="metal", genres=("metal", "rock"), tags=("metal", "heavy metal")),
    TagKind(name="pop", genres=("pop", "disco"), tags=("pop", "indie pop")),
    TagKind(name="jazz", genres=("jazz", "classical"), tags=("jazz",)),  # musicnn's MSD tags have no `classical`
    TagKind(name="blues", genres=("blues",), tags=("blues",)),
    TagKind(name="country", genres=("country",), tags=("country",)),
    TagKind(name="folk", genres=("folk",), tags=("folk",)),
    TagKind(name="hiphop", genres=("hiphop",), tags=("Hip-Hop",)),
    TagKind(name="soul", genres=("soul", "blues", "disco", "hiphop", "pop", "reggae"), tags=("soul", "funk", "rnb")),
    TagKind(name="dance", genres=("dance", "disco", "hiphop", "pop", "reggae"), tags=("dance",)),
    TagKind(name="electronic", genres=("electronic",), tags=(
        "electronic", "electronica", "electro", "House", "ambient", "chillout", "chill",
    )),
)
# fmt: on
"""The kinds that the default release knows. Tags of voices, moods, instruments and decades name none."""


def tag_kinds(kinds: Sequence[TagKind], classes: Sequence[str]) -> TagKinds | None:
    """The kinds as a head with these classes asks them; None where there are no kinds.

    A class that no kind names goes with all of them: nothing is known against it.

    Raises:
        SettingsError: two kinds have the same tag.
    """
    if not kinds:
        return None
    of_tag = np.full(len(TAGS[NETWORK]), -1, np.int64)
    for number, kind in enumerate(kinds):
        places = [TAGS[NETWORK].index(tag) for tag in kind.tags]
        if (of_tag[places] >= 0).any():
            raise SettingsError(f"a tag of the kind {kind.name} names another kind too; give each tag one")
        of_tag[places] = number
    named = {genre for kind in kinds for genre in kind.genres}
    fits = [[name in kind.genres or name not in named for name in classes] for kind in kinds]
    return TagKinds(network=NETWORK, names=tuple(kind.name for kind in kinds), of_tag=of_tag, fits=np.array(fits))
