"""What sets pictures apart before any content is compared: further pages, grey among colour, another shape or size.

Nobody is refused for it: a picture keeps its place in a fit, and its verdict. But its score may not mean the same, so
it is told, once, with a count. Two sizes are far apart where the ratio of the sides differs by more than a quarter (a
camera turned on its side, another cut of the picture: by squashing, round things become ovals), or the side by more
than a factor of two (another resolution: details that were learnt are not there, or those that are were not learnt).
Less than that is what cutting out a part by hand varies by. A picture is grey where its channels are alike (see
`loading.is_grey`).
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from totalrecall.errors import PassedOverWarning, UnlikePictureWarning
from totalrecall.pictures.files import some_names
from totalrecall.pictures.loading import LearntPicture, LoadedPicture
from totalrecall.system.text import listed

__all__ = ["LearntKinds", "OddSize", "PictureTally", "are_far", "mixed_notes", "odd_sizes"]

Size = tuple[int, int]  # width, height

_SHAPE, _SIDE = 1.25, 2.0  # ratios from which two sizes are far apart
_ASPECT = 1.5  # times longer or shorter than usual, where sizes differ anyway
_ODD = 5.0  # robust standard deviations
_NAMED = 3
_SQUEEZED = (
    "All pictures are brought to the same square, so these scores may be wrong. Use pictures of one size and cut"
)
_COLOURS = "Their scores may not mean the same. Give pictures of one camera, in one setting"


@dataclass(frozen=True)
class OddSize:
    """A picture of another size than most, or of another shape where sizes differ anyway.

    Attributes:
        picture: its number.
        usual: in words.
        far: it is far from the usual (see the module), not only different.
    """

    picture: int
    usual: str
    far: bool = field(default=True, compare=False)


def are_far(first: Size, second: Size) -> bool:
    """Tell whether two sizes are far apart in shape or in scale."""
    shape = math.log(first[0] / first[1]) - math.log(second[0] / second[1])
    side = (math.log(first[0] * first[1]) - math.log(second[0] * second[1])) / 2
    return abs(shape) > math.log(_SHAPE) or abs(side) > math.log(_SIDE)


def odd_sizes(pictures: Sequence[LearntPicture]) -> list[OddSize]:
    """Return the pictures that have not the size of most; where there is none such, those of an unusual shape."""
    if not pictures:
        return []
    sizes = [(picture.width, picture.height) for picture in pictures]
    (usual, votes), *_ = Counter(sizes).most_common(1)
    if 2 * votes > len(sizes):
        words = f"{usual[0]} x {usual[1]}"
        return [OddSize(at, words, are_far(size, usual)) for at, size in enumerate(sizes) if size != usual]
    logs = np.log([width / height for width, height in sizes])
    middle = float(np.median(logs))
    apart = np.abs(logs - middle)
    limit = max(float(np.log(_ASPECT)), _ODD * 1.4826 * float(np.median(apart)))
    words = f"{np.exp(middle):.2g} times as wide as high"
    return [OddSize(int(at), words) for at in np.flatnonzero(apart > limit)]


def mixed_notes(pictures: Sequence[LearntPicture], *, sizes: bool = True) -> list[str]:
    """Say how the pictures of a fit differ among themselves, a line for each kind.

    Args:
        pictures: of the fit.
        sizes: of their sizes too.
    """
    notes = []
    grey = [picture.path for picture in pictures if picture.grey]
    colour = [picture.path for picture in pictures if picture.grey is False]
    if grey and colour:
        names = min(grey, colour, key=len)
        kinds = "grey and the others colour" if names is grey else "colour and the others grey"
        notes.append(f"{_are(len(names), len(pictures))} {kinds} ({some_names(names)}). {_COLOURS}.")
    odd = [odd_size for odd_size in odd_sizes(pictures) if odd_size.far] if sizes else []
    if odd:
        named = _sized([(pictures[odd_size.picture].path, _size(pictures[odd_size.picture])) for odd_size in odd])
        far = f"{_are(len(odd), len(pictures))} of another shape or size than most ({named}; usual is {odd[0].usual})"
        notes.append(f"{far}. {_SQUEEZED}.")
    return notes


class LearntKinds:
    """What a model's own pictures are like: their sizes, and whether all are grey or all are colour."""

    def __init__(self, pictures: Sequence[LearntPicture]) -> None:
        self.pictures = pictures
        self.sizes = Counter(_size(picture) for picture in pictures)
        kinds = {picture.grey for picture in pictures}
        self.grey = kinds.pop() if len(kinds) == 1 else None  # None: both, or a model of before that does not say

    def is_far(self, size: Size) -> bool:
        """Tell whether a size is far from all learnt ones."""
        return size not in self.sizes and bool(self.sizes) and all(are_far(size, learnt) for learnt in self.sizes)


class PictureTally:
    """Counts pictures as they are read, and says at the end what set them apart.

    Args:
        learnt: what a model's own pictures are like; None where pictures are read for a fit.
    """

    def __init__(self, learnt: LearntKinds | None = None) -> None:
        self._learnt = learnt
        self._count = 0
        self._numbers: Counter[str] = Counter()  # of each kind
        self._named: dict[str, list[tuple[str, Size]]] = {"pages": [], "colours": [], "sizes": []}  # the first few

    def observe(self, picture: LoadedPicture) -> None:
        """Take notice of a picture; of one that could not be read there is nothing to say."""
        if picture.error is not None or picture.geometry is None:
            return
        self._count += 1
        learnt, size = self._learnt, (picture.geometry.original[1], picture.geometry.original[0])
        met = {
            "pages": picture.pages > 1,
            "colours": learnt is not None and learnt.grey is not None and picture.grey != learnt.grey,
            "sizes": learnt is not None and learnt.is_far(size),
        }
        for kind in (kind for kind, is_met in met.items() if is_met):
            self._numbers[kind] += 1
            if len(self._named[kind]) < _NAMED:  # a line sees millions
                self._named[kind].append((picture.path, size))

    def notes(self) -> "list[tuple[str, type[UserWarning], str]]":
        """Return for each kind that was met its name, the warning's class, and a line with the count."""
        words = {"pages": self._pages, "colours": self._colours, "sizes": self._sizes}
        classes = {"pages": PassedOverWarning}
        met = [(kind, self._numbers[kind]) for kind in words if self._numbers[kind]]
        return [(kind, classes.get(kind, UnlikePictureWarning), words[kind](count)) for kind, count in met]

    def _pages(self, count: int) -> str:
        which, first = ("files hold", "the first of each") if count > 1 else ("file holds", "the first")
        what = f"{count} {which} more than one page or frame; only {first} is read ({self._names('pages')})"
        return f"{what}. Save each page as a picture of its own to have it read."

    def _colours(self, count: int) -> str:
        assert self._learnt is not None
        colours, learnt = ("colour", "grey") if self._learnt.grey else ("grey", "colour")
        what = (
            f"{_are(count, self._count)} {colours} where all that were learnt are {learnt} ({self._names('colours')})"
        )
        return f"{what}. {_COLOURS}."

    def _sizes(self, count: int) -> str:
        assert self._learnt is not None
        (width, height), _ = self._learnt.sizes.most_common(1)[0]
        named = f"{_sized(self._named['sizes'], count)}; learnt: {width} x {height}"
        return f"{_are(count, self._count)} far from all learnt ones in shape or size ({named}). {_SQUEEZED}."

    def _names(self, kind: str) -> str:
        more = self._numbers[kind] - len(self._named[kind])
        return some_names([path for path, _ in self._named[kind]]) + (f" and {more} more" if more else "")

    def warn(self, *, told: "set[str] | None" = None, stacklevel: int = 2) -> None:
        """Warn of what was met, a line for each kind.

        Args:
            told: kinds that were told before, and are not told again; those told now are added.
            stacklevel: as for `warnings.warn`, seen from the caller.
        """
        for kind, category, text in self.notes():
            if told is None or kind not in told:
                warnings.warn(text, category, stacklevel=stacklevel + 1)
            if told is not None:
                told.add(kind)


def _size(picture: LearntPicture) -> Size:
    return picture.width, picture.height


def _are(count: int, total: int) -> str:
    if total == 1:
        return "1 picture is"
    return f"{count} of {total} pictures {'are' if count > 1 else 'is'}"


def _sized(pictures: Sequence[tuple[str, Size]], count: int | None = None) -> str:
    """Return the first few pictures with their sizes, and how many more there are."""
    words = [f"{Path(path).name} is {width} x {height}" for path, (width, height) in pictures[:_NAMED]]
    return listed(words, _NAMED, total=count or len(pictures))
