"""Which good pictures are repeats: the same bytes, the same pixels, or a frame that was saved again.

A repeat adds nothing to what is learnt, but scored by a bank that holds the first one it seems better known than any
new part will be, and the threshold falls. So a repeat is left out, and the fit is that of the different pictures, to
the bit. Three kinds are told, each by an absolute rule that holds for two pictures as well as for thousands:

- the same bytes, whatever the file's name or path, or the same array;
- the same pixels, once both are prepared (PNG saved as BMP, or a difference outside the region of interest);
- nearly the same frame: saved again as JPEG, or with some more light. The light of one is fitted to the other's
  (gain and offset), and what then remains must be small in each square of 16 x 16 pixels; and the fine detail must be
  the same, every place counting alike, strong edges no more than grain.

The last needs both. Two photographs of different parts that lie alike have edges in common, but not the grain between
them; two blank plates differ little anywhere, but their grain is not the same. Only what is inspected counts: the rest
is blank in every picture. Measured at 256 pixels: copies of JPEG quality 95, or of 5 percent more light, of bottles,
magnetic tiles, cookies, tyres, plates and five drawn kinds leave at most 0.86 of the limit and have detail alike by
0.62 or more. Of different pictures no pair of 209 bottles, 761 tiles, 31 cookies, 264 tyres or 24 of each drawn kind
leaves less than 1.7 of it where detail is alike by a half; nor does a tile that was photographed twice in one place.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from totalrecall.pictures.geometry import Geometry, Recipe
from totalrecall.pictures.in_memory import RemotePicture, source_name
from totalrecall.pictures.loading import Source, load_picture
from totalrecall.types import Matrix, PreparedImage, PreparedMask

__all__ = ["FINGERPRINT", "Mark", "Repeat", "Repeats", "inspected", "mark_of", "nearly_the_same", "repeats_note"]

Mark = tuple[bytes, np.ndarray, np.ndarray]
How = Literal["bytes", "pixels", "nearly"]
_HOWS: Sequence[How] = ("bytes", "pixels", "nearly")  # from all to least

FINGERPRINT = 3500  # bytes kept of a picture, to find what may be a repeat
_SQUARE = 16  # pixels a side
_FLAT = 0.3  # grey levels: a place whose fine detail is less tells nothing
_DETAIL = 1.0  # pixels, sigma: finer than this is fine detail
_AROUND = 5  # pixels a side, over which its strength is evened out
_ALIKE = 0.55  # cosine of the fine detail of two pictures of one frame, at least
_APART = 3.5  # grey levels that remain in the worst square, at most, as a root mean square,
_OF_CONTRAST = 0.12  # or this share of the square's own contrast, where that is more
_COLOUR = (8, 10.0)  # pixels a side over which a colour's mean may differ by so many grey levels: JPEG's 8, at 95
_DARK, _BRIGHT = 3, 245  # grey levels beyond which a camera may have cut off
_NUMBERS = 1024  # of the sketch of the fine detail, which errs by 0.03 in the cosine
_CANDIDATE = 0.45  # cosine of two sketches, from which on the pictures themselves are compared
_TRIED = 8  # candidates that are read again for one picture
_LIGHT = 16  # squares a side of the small picture, and
_LIGHT_APART = 12.0  # grey levels that may remain in the worst of them
_SEED = 11  # any does
_BLOCK = 1 << 20  # bytes of a file read at a time


@dataclass(frozen=True)
class Repeat:
    """A good picture that is left out because an earlier one is the same.

    Attributes:
        path: of the picture, or `array[i]`.
        first: path of the earlier one, which counts.
        same: what they share: `bytes`, `pixels`, or `nearly` all that there is to see.
    """

    path: str
    first: str
    same: How


class Repeats:
    """Finds the repeats among the pictures of a fit: those of the same bytes at once, the others once all were seen.

    Attributes:
        sources: the pictures as given.
        places: of those that count, ascending, among all given.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._first: dict[int, tuple[int, How]] = {at: (first, "bytes") for at, first in _same_bytes(sources).items()}
        self._searched = False
        self._marks: dict[int, Mark] = {}

    @property
    def places(self) -> list[int]:
        """Of the pictures that count, among all given, ascending."""
        return [at for at in range(len(self.sources)) if at not in self._first]

    @property
    def distinct(self) -> list[Source]:
        """The pictures that count, in the order given."""
        return [self.sources[at] for at in self.places]

    @property
    def told(self) -> list[Repeat]:
        """The repeats found so far, in the order given."""
        names = {at: source_name(self.sources[at], at) for pair in self._first.items() for at in (pair[0], pair[1][0])}
        return [Repeat(names[at], names[first], same) for at, (first, same) in sorted(self._first.items())]

    @property
    def searched(self) -> bool:
        """Whether the search is done, so that pictures are no longer noticed."""
        return self._searched

    def look(self, place: int, prepared: PreparedImage, inside: PreparedMask) -> None:
        """Take notice of a picture that was read, and of what counts of it (see `inspected`); not after the search."""
        if not self._searched:
            self.note(place, mark_of(prepared, inside))

    def note(self, place: int, mark: Mark) -> None:
        """Take notice of a picture by its mark; not after the search."""
        if not self._searched:
            self._marks[place] = mark

    def search(self, recipe: Recipe, *, rows: int = 1024) -> bool:
        """Find the pictures that show what an earlier one shows, and forget what was noticed; tells whether any does.

        Args:
            recipe: as the pictures were prepared; those that may be the same are read again.
            rows: pictures compared with all at a time.
        """
        self._searched = True
        places = sorted(self._marks)
        same = _same_pixels(places, [self._marks[at][0] for at in places])
        single = [at for at in places if at not in same]
        details = np.stack([self._marks[at][1] for at in single]) if single else np.empty((0, _NUMBERS), np.float16)
        lights = [self._marks[at][2] for at in single]
        self._marks.clear()
        near: dict[int, int] = {}
        for row, candidates in _candidates(details, rows):
            earlier = dict.fromkeys(near.get(other, other) for other in candidates)
            for other in [candidate for candidate in earlier if _lights_agree(lights[row], lights[candidate])][:_TRIED]:
                if self._same(single[row], single[other], recipe):
                    near[row] = other
                    break
        self._first |= {at: (first, "pixels") for at, first in same.items()}
        self._first |= {single[row]: (single[first], "nearly") for row, first in near.items()}
        self._first = {at: self._root(at) for at in self._first}
        return bool(same or near)

    def _root(self, place: int) -> tuple[int, How]:
        """Return the picture that counts for a repeat, through others that repeat it, and what the two share."""
        first, same = self._first[place]
        while first in self._first:
            first, less = self._first[first]
            same = max(same, less, key=_HOWS.index)
        return first, same

    def _same(self, place: int, other: int, recipe: Recipe) -> bool:
        first, second = (load_picture(self.sources[at], recipe) for at in (place, other))
        if first.prepared is None or first.geometry is None or second.prepared is None or second.geometry is None:
            return False
        inside = inspected(recipe, first.geometry) & inspected(recipe, second.geometry)
        return nearly_the_same(first.prepared, second.prepared, inside)


def repeats_note(repeats: Sequence[Repeat], given: int) -> str:
    """Say which pictures were left out as repeats of others, and what is left.

    Args:
        repeats: of the fit.
        given: pictures in all.
    """
    words = {"bytes": "same bytes", "pixels": "same pixels", "nearly": "nearly the same picture"}
    shown = "; ".join(f"{repeat.path} is {repeat.first} again ({words[repeat.same]})" for repeat in repeats[:3])
    shown += f"; and {len(repeats) - 3} more" if len(repeats) > 3 else ""
    left, single = given - len(repeats), len(repeats) == 1
    few = " That is too few for a threshold: give at least 3 different ones." if left < 3 else ""
    what = "repeats another and counts" if single else "repeat others and count"
    count = f"{len(repeats)} of {given} good pictures {what}"
    rest = "picture is" if left == 1 else "pictures are"
    return f"{count} once: {shown}. {left} different {rest} left.{few}"


# ---------------------------------------------------------------------- the same bytes


def _same_bytes(sources: Sequence[Source]) -> dict[int, int]:
    """Return of each source that holds the bytes of an earlier one the place of the first. What has no like of its own
    size is not read."""
    sizes: dict[object, list[int]] = {}
    for at, source in enumerate(sources):
        size = _size(source)
        if size is not None:
            sizes.setdefault(size, []).append(at)
    repeats: dict[int, int] = {}
    for group in sizes.values():
        first: dict[object, int] = {}
        for at in group if len(group) > 1 else ():
            digest = _digest(sources[at])
            if digest is not None and first.setdefault(digest, at) != at:
                repeats[at] = first[digest]
    return repeats


def _size(source: Source) -> object:
    """Return what two sources of the same bytes have in common; None of what is compared by its pixels alone."""
    if isinstance(source, np.ndarray):
        return (source.dtype.str, source.shape) if source.size and source.dtype != object else None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return len(source) or None
    if isinstance(source, RemotePicture):
        return source.size or None
    if not isinstance(source, (str, os.PathLike)):
        return None
    try:
        status = os.stat(source)  # noqa: PTH116  a name may hold a NUL byte, which is an error of this picture alone
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None


def _digest(source: Source) -> bytes | None:
    """Return the hash of a source's bytes; None where they cannot be read."""
    if isinstance(source, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(source).tobytes()).digest()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).digest()
    if isinstance(source, RemotePicture):
        return source.digest
    assert isinstance(source, (str, os.PathLike))
    digest = hashlib.sha256()
    try:
        with Path(source).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):
        return None
    return digest.digest()


# ---------------------------------------------------------------------- the same to look at


def inspected(recipe: Recipe, geometry: Geometry) -> PreparedMask:
    """Return where a prepared picture (H, W) shows what is inspected: neither padding nor outside the region."""
    inside = np.zeros(geometry.prepared, bool)
    spans = [
        slice(max(-offset, 0), max(min(resized - offset, side), 0))
        for offset, resized, side in zip(geometry.offset, geometry.resized, geometry.prepared, strict=True)
    ]
    inside[spans[0], spans[1]] = True
    roi = recipe.prepared_roi(geometry)
    return inside if roi is None else inside & roi


def nearly_the_same(first: PreparedImage, second: PreparedImage, inside: PreparedMask) -> bool:
    """Tell whether two prepared pictures, uint8 RGB (H, W, 3), show one frame where they count; see above."""
    if first.shape != second.shape or not inside.any():
        return False
    darker, lighter = sorted((first, second), key=lambda picture: float(picture[inside].mean()))
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in (darker, lighter)]
    details = [_evened(grey, inside) for grey in greys]
    lengths = [float(np.linalg.norm(detail)) for detail in details]
    if not all(lengths) or float((details[0] * details[1]).sum()) < _ALIKE * lengths[0] * lengths[1]:
        return False
    remaining = np.sqrt((_squares(_fitted(greys[0], greys[1], inside)) ** 2).mean(axis=1))
    contrast = _squares(np.where(inside, greys[1], greys[1][inside].mean())).std(axis=1)
    if (remaining > np.maximum(_APART, _OF_CONTRAST * contrast)).any():
        return False
    side, most = _COLOUR
    colours = (_fitted(darker[..., c].astype(np.float32), lighter[..., c].astype(np.float32), inside) for c in range(3))
    return all(float(np.abs(cv2.blur(colour, (side, side))).max()) <= most for colour in colours)


def _fitted(darker: Matrix, lighter: Matrix, inside: PreparedMask) -> Matrix:
    """Return what remains of the lighter picture once the darker one's light is fitted to it, (H, W), 0 outside."""
    whole = inside & (darker > _DARK) & (darker < _BRIGHT) & (lighter > _DARK) & (lighter < _BRIGHT)
    before, after = darker[whole], lighter[whole]
    gain, offset = 1.0, 0.0
    if len(before):
        spread = float(before.var())
        if spread > 1:
            gain = float(((before - before.mean()) * (after - after.mean())).mean()) / spread
        offset = float(after.mean()) - gain * float(before.mean())
    return np.where(inside, np.clip(gain * darker + offset, 0, 255) - lighter, np.float32(0)).astype(np.float32)


def _squares(picture: Matrix) -> Matrix:
    """Cut a picture (H, W) into squares, a row each, (n, pixels); mirrored where it does not fill the last ones."""
    height, width = picture.shape
    below, right = -height % _SQUARE, -width % _SQUARE
    whole = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REFLECT)
    rows, columns = whole.shape[0] // _SQUARE, whole.shape[1] // _SQUARE
    squares = whole.reshape(rows, _SQUARE, columns, _SQUARE).swapaxes(1, 2)  # (H, W) -> (rows, columns, 16, 16)
    return squares.reshape(rows * columns, _SQUARE**2)


def _evened(grey: Matrix, inside: PreparedMask) -> Matrix:
    """Return the fine detail of a picture (H, W) at about the same strength everywhere; 0 where it is flat."""
    detail = grey - cv2.GaussianBlur(grey, (0, 0), _DETAIL)
    detail -= cv2.GaussianBlur(detail, (0, 0), _DETAIL)  # twice: of smooth shapes, which all parts share, less is left
    strength = np.sqrt(np.maximum(cv2.blur(detail * detail, (_AROUND, _AROUND)), 0))  # it rounds under 0
    counts = strength > _FLAT
    if not inside.all():  # the border of what is blank is the same in all pictures
        counts &= cv2.erode(inside.view(np.uint8), np.ones((_AROUND, _AROUND), np.uint8), borderValue=1) > 0
    return np.divide(detail, strength, out=np.zeros_like(detail), where=counts)


def mark_of(prepared: PreparedImage, inside: PreparedMask) -> Mark:
    """Return what a picture is known by: a hash of its pixels, a sketch of its detail (1024,), a small one (16, 16).

    Args:
        prepared: the picture.
        inside: what counts of it (see `inspected`).
    """
    grey = cv2.cvtColor(prepared, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = _evened(grey, inside).ravel()
    signed = detail * _signs(len(detail))
    sketch = np.add.reduceat(signed, np.arange(0, len(signed), max(len(signed) // _NUMBERS, 1))[:_NUMBERS])
    full = np.zeros(_NUMBERS, np.float32)
    full[: len(sketch)] = sketch
    length = float(np.linalg.norm(full))
    small = cv2.resize(np.where(inside, grey, np.float32(np.nan)), (_LIGHT, _LIGHT), interpolation=cv2.INTER_AREA)
    pixels = hashlib.blake2b(str(prepared.shape).encode() + prepared.tobytes(), digest_size=16).digest()
    return pixels, (full / length if length else full).astype(np.float16), small


@lru_cache(maxsize=4)
def _signs(count: int) -> np.ndarray:
    return np.random.default_rng(_SEED).choice(np.array([-1, 1], np.float32), count)


def _same_pixels(places: Sequence[int], hashes: Sequence[bytes]) -> dict[int, int]:
    """Return of each place whose picture has the pixels of an earlier one the first place of these."""
    first: dict[bytes, int] = {}
    return {at: first[digest] for at, digest in zip(places, hashes, strict=True) if first.setdefault(digest, at) != at}


def _candidates(details: Matrix, rows: int) -> list[tuple[int, list[int]]]:
    """Return of each row (n, 1024) the earlier ones that it may be a copy of, the likeliest first; none is left out."""
    candidates = []
    for start in range(0, len(details), rows):
        block = details[start : start + rows].astype(np.float32)
        alike = np.concatenate(  # (rows, 1024) @ (1024, earlier), a block at a time
            [block @ details[at : at + rows].astype(np.float32).T for at in range(0, start + 1, rows)], axis=1
        )
        for row, values in enumerate(alike):
            earlier = np.flatnonzero(values[: start + row] > _CANDIDATE)
            if len(earlier):
                candidates.append((start + row, earlier[np.argsort(-values[earlier], kind="stable")].tolist()))
    return candidates


def _lights_agree(first: Matrix, second: Matrix) -> bool:
    """Tell whether two small pictures may be of one frame: a cheap look before the pictures are read again."""
    darker, lighter = sorted((first, second), key=lambda picture: float(np.nan_to_num(picture).mean()))
    return bool(np.abs(_fitted(darker, lighter, np.isfinite(darker) & np.isfinite(lighter))).max() <= _LIGHT_APART)
