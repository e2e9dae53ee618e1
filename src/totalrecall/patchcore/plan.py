"""What a fit will take, known before it starts: patches, bytes, scratch space, and which of three ways it will go.

1. `memory`: all patches are held, and the coreset is chosen among them.
2. `scratch`: the patches lie in a scratch file, and only their projection, which the coreset is chosen in, is held. The
   bank is the same to the bit. (Vectors of up to 512 numbers are not projected: they have no second way.)
3. `chunks`: the pictures are taken in chunks, each gives its own coreset, and a merge chooses among these (`chunks`).

The first that fits under the limit is taken. The limit is that of the whole process, its libraries included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from totalrecall.calibration import held_out, make_folds
from totalrecall.errors import DataError, SettingError
from totalrecall.features.memory import baseline_bytes, engine_bytes, sizes_seen
from totalrecall.features.patches import PatchExtractor
from totalrecall.patchcore.coreset import AT_ONCE, budget, project
from totalrecall.patchcore.settings import Settings, coreset_dimensions
from totalrecall.patchcore.tilted import ANGLES
from totalrecall.pictures.loading import Source
from totalrecall.system.memory import available_memory, check_scratch, resident_memory
from totalrecall.system.text import format_size
from totalrecall.system.threads import one_blas_thread
from totalrecall.types import Matrix, Patches

__all__ = ["JoinedPlan", "Plan", "make_plan", "plan_members", "projected_patches", "refilling"]

_LARGER = 2.0  # a chunk keeps this many times its share, so that the merge has something to choose among,
_LEAST = 1000  # and so many at least, or as many as the bank: fewer may leave out whole kinds of patches
_PER_POINT = 72  # of the coreset's walk, beside the point itself
_MEASURED = 5  # bytes a cell of each picture that sets the threshold: its distance, and whether it counts
_NOTED = 18  # where each patch is from, what covers it, and which are left out
_BLOCKS = 48 << 20  # of products
_SEARCHED = 4.5  # times the bank: its vectors, the search structure, and what making it takes
_ORPHANS = 4  # times a fold's patches, copied while its bank is refilled, or what `refill` copies at a time
_SAVED = 1.5  # times the bank: its vectors, and what choosing and writing them takes


@dataclass(frozen=True)
class Plan:
    """What a fit will take.

    Attributes:
        pictures: number given. `folds` has the number of pictures in each fold; a bank without the fold scores them,
            and these scores set the threshold.
        patches: number in all pictures; each has `dimensions`, and the coreset is chosen in `coreset_dimensions` of
            them. Exact, unless a region of interest covers unequal parts of pictures of unequal size, or there are
            tilted copies: then at most so many.
        vectors: that the bank will hold.
        way: `memory`, `scratch` or `chunks`.
        chunks: picture positions of each chunk, those held out apart; one with all of them in the other ways.
        held_chunks: how many of the chunks, the last ones, are of pictures held out.
        share: of its patches that a chunk keeps, and `least` of them; `merged` unless that is the bank already.
        at_least: vectors that a bank has.
        limit: bytes allowed to the process; `memory` of them are expected to be used at most.
        exact: bytes that one chunk would take, and the same answer as without a limit.
        scratch: bytes of scratch file.
        copies: tilted ones of each picture.
    """

    pictures: int
    folds: Sequence[int]
    patches: int
    dimensions: int
    coreset_dimensions: int
    vectors: int
    way: str
    chunks: Sequence[np.ndarray] = field(repr=False)
    held_chunks: int
    share: float
    at_least: int
    least: int
    merged: bool
    limit: int
    memory: int
    exact: int
    scratch: int
    copies: int = 0

    @property
    def projected(self) -> bool:
        """Whether the coreset is chosen in a projection."""
        return self.coreset_dimensions < self.dimensions

    @property
    def per_picture(self) -> int:
        """Patches a picture."""
        return self.patches // max(self.pictures, 1)

    def kept(self) -> list[int]:
        """Return how many vectors each chunk keeps; with one chunk, what the bank holds."""
        if self.way != "chunks":
            return [self.vectors]
        return [self.keeps(len(chunk) * self.per_picture) for chunk in self.chunks]

    def keeps(self, patches: int) -> int:
        """Return how many of its patches a chunk keeps."""
        return min(max(math.ceil(self.share * patches), self.least), patches)

    @property
    def held(self) -> int:
        """How many pictures set the threshold."""
        return sum(self.folds)

    def others(self) -> list[int]:
        """Return how many vectors the bank without each fold has."""
        if self.way == "chunks":
            return [max(self.vectors * (self.pictures - fold) // self.pictures, 1) for fold in self.folds]
        return [budget(self.per_picture * (self.pictures - fold), self.share, self.at_least) for fold in self.folds]

    @property
    def selections(self) -> int:
        """How many points are chosen in all: by the chunks, by the merge, and for the banks without a fold."""
        last = self.vectors + sum(self.others())
        return last if self.way != "chunks" else sum(self.kept()) + (last if self.merged else 0)

    def facts(self) -> dict[str, object]:
        """Return what a program may want to read, as JSON types."""
        names = ("pictures", "patches", "dimensions", "way", "limit", "memory", "exact", "scratch")
        return {**{name: getattr(self, name) for name in names}, "chunks": len(self.chunks)}


def make_plan(
    extractor: PatchExtractor,
    settings: Settings,
    sources: Sequence[Source],
    memory: int | None = None,
    *,
    beside: int = 0,
    free: bool = False,
) -> Plan:
    """Choose how to fit, by arithmetic.

    Args:
        extractor: its backbone and recipe say how many patches there will be, and of how many numbers.
        settings: how many of them are kept, and how the threshold is set.
        sources: the headers of a few of them say how large pictures are.
        memory: bytes that the process may use; half of what is free if not given.
        beside: bytes of these that other banks hold meanwhile.
        free: memory is half of what is free, and nobody asked for it.

    Raises:
        DataError: there are no pictures, or the scratch disk is too small.
        SettingError: not even the bank fits.
    """
    if not len(sources):
        raise DataError("There are no pictures to fit on. Give files, folders or globs of good pictures.")
    rows, columns, dimensions = extractor.expected_grid()
    pixels, per_picture = sizes_seen(extractor.recipe, sources, (rows, columns))
    base = baseline_bytes(extractor, pixels, 4 * rows * columns * dimensions, len(sources))
    folds = make_folds(len(sources), settings.holdout, settings.folds, settings.seed)
    base += _MEASURED * rows * columns * sum(map(len, folds))
    default = memory is None or free
    limit = resident_memory() + available_memory() // 2 if memory is None else memory
    limit -= beside
    sizes = _Sizes(
        pictures=len(sources),
        folds=[len(fold) for fold in folds],
        per_picture=max(per_picture, 1),
        copies=0,
        dimensions=dimensions,
        coreset_dimensions=coreset_dimensions(dimensions, settings),
        ratio=settings.coreset,
        at_least=settings.at_least,
        base=base,
        limit=limit,
    )
    few = replace(sizes, copies=len(ANGLES)) if len(sources) <= settings.tilt_up_to else sizes
    plan = _whole(few) or _whole(sizes) or _in_chunks(sizes, settings)
    if plan is None:
        raise SettingError(_refusal(sizes, settings, default, beside), "memory")
    check_scratch(plan.scratch)
    return plan


@dataclass(frozen=True)
class JoinedPlan:
    """What the fits of several members will take, one after the other.

    Attributes:
        names: of the members, in words.
        plans: of each, within what those before it leave of the limit.
        memory: bytes that are expected to be used at most; `limit` are allowed.
    """

    names: Sequence[str]
    plans: Sequence[Plan]
    memory: int
    limit: int

    @property
    def scratch(self) -> int:
        """Bytes of scratch file."""
        return max(plan.scratch for plan in self.plans)

    def facts(self) -> dict[str, object]:
        """Return what a program may want to read, as JSON types."""
        members = [{"member": name, **plan.facts()} for name, plan in zip(self.names, self.plans, strict=True)]
        whole = {"pictures": self.plans[0].pictures, "limit": self.limit, "memory": self.memory}
        return {**whole, "scratch": self.scratch, "members": members}


def plan_members(
    members: Sequence[tuple[PatchExtractor, Settings]],
    names: Sequence[str],
    sources: Sequence[Source],
    memory: int | None = None,
) -> JoinedPlan:
    """Choose how to fit several members on the same pictures, one after the other: each stays in memory.

    Args:
        members: extractor and settings of each.
        names: of them, in words.
        sources, memory: see `make_plan`.

    Raises:
        DataError, SettingError: as `make_plan`.
    """
    limit = resident_memory() + available_memory() // 2 if memory is None else memory
    plans: list[Plan] = []
    held = most = 0
    for (extractor, settings), name in zip(members, names, strict=True):
        try:
            plan = make_plan(extractor, settings, sources, limit, beside=held, free=memory is None)
        except SettingError as error:
            beside = f"; those before it hold {format_size(held)} of it" if held else ""
            raise SettingError(f"{error} This is for the member {name}{beside}.", *error.settings) from None
        plans.append(plan)
        most = max(most, held + plan.memory)
        rows, columns, _ = extractor.expected_grid()
        held += int(_SEARCHED * 4 * plan.vectors * plan.dimensions) + 4 * rows * columns * plan.held
        held += engine_bytes(extractor)
    return JoinedPlan(names, plans, most, limit)


@dataclass(frozen=True)
class _Sizes:
    """The numbers that a plan is made from."""

    pictures: int
    folds: Sequence[int]
    per_picture: int
    copies: int
    dimensions: int
    coreset_dimensions: int
    ratio: float
    at_least: int
    base: int
    limit: int

    @property
    def patches(self) -> int:
        return self.pictures * self.per_picture * (1 + self.copies)

    @property
    def vectors(self) -> int:
        return budget(self.patches, self.ratio, self.at_least)

    @property
    def projected(self) -> bool:
        return self.coreset_dimensions < self.dimensions

    @property
    def bank(self) -> int:
        """Bytes that the bank takes, with all that is done with it."""
        return int(self.vectors * self.dimensions * 4 * (_SEARCHED if self.folds else _SAVED))

    def whole(self, *, scratch: bool) -> int:
        """Bytes that one chunk takes."""
        numbers = (0 if scratch else self.dimensions) + (self.coreset_dimensions if self.projected else 0)
        walk = _PER_POINT * self.patches + _BLOCKS
        orphans = refilling(self.patches, self.coreset_dimensions, self.folds)
        return self.base + 4 * numbers * self.patches + max(walk, _NOTED * self.patches + self.bank) + orphans


def refilling(patches: int, dimensions: int, folds: Sequence[int]) -> int:
    """Return the bytes that it takes to refill the bank without a fold, of so many patches of so many numbers."""
    if len(folds) < 2:
        return 0
    return 4 * dimensions * _ORPHANS * max(patches // len(folds), min(patches, AT_ONCE))


def _whole(sizes: _Sizes) -> Plan | None:
    """Return the plan of the first or second way, or None where neither fits."""
    for scratch in (False, True) if sizes.projected else (False,):
        needed = sizes.whole(scratch=scratch)
        if needed <= sizes.limit:
            everything = [np.arange(sizes.pictures)]
            disk = 4 * sizes.patches * sizes.dimensions if scratch else 0
            return _plan(sizes, "scratch" if scratch else "memory", everything, 0, sizes.ratio, needed, disk)
    return None


def _in_chunks(sizes: _Sizes, settings: Settings) -> Plan | None:
    """Return the plan of the third way, or None where not even that fits."""
    room = sizes.limit - sizes.base - _BLOCKS - 12 * int(_LARGER * sizes.vectors)
    point = _PER_POINT + 4 * sizes.coreset_dimensions
    of_chunk = _PER_POINT + 4 * (sizes.coreset_dimensions if sizes.projected else sizes.dimensions)
    most = min(room // (of_chunk * sizes.per_picture), sizes.pictures)
    if most < 1 or sizes.base + sizes.bank > sizes.limit:
        return None
    held = held_out(sizes.pictures, settings.holdout, settings.seed)
    others = np.setdiff1d(np.arange(sizes.pictures), held)
    chunks, held_chunks = _cut(others, most), _cut(held, most)
    # the merge walks what all chunks kept; where that does not fit they keep what the bank needs, and nothing is merged
    larger = min(_LARGER, (room // point - len(chunks + held_chunks)) / sizes.vectors)
    larger = larger if larger >= 1.05 else 1.0
    share = min(sizes.ratio * larger, 1.0)
    largest = max(map(len, chunks + held_chunks)) * sizes.per_picture
    disk = 4 * sizes.dimensions * largest if sizes.projected else 0
    plan = _plan(sizes, "chunks", chunks + held_chunks, len(held_chunks), share, largest * of_chunk, disk)
    merged = larger > 1
    least = min(_LEAST, sizes.vectors) if merged else 0
    if sum(replace(plan, least=least).kept()) * point > room:
        least = 0
    plan = replace(plan, least=least, merged=merged, folds=[len(held)] if len(held) else [])
    kept = sum(plan.kept())
    needed = sizes.base + max(plan.memory + _BLOCKS, (kept * point if merged else 0) + _BLOCKS, sizes.bank)
    return replace(
        plan,
        vectors=sizes.vectors if merged else kept,
        memory=needed,
        scratch=disk + 4 * sizes.dimensions * kept,
    )


def _plan(
    sizes: _Sizes, way: str, chunks: list[np.ndarray], held_chunks: int, share: float, memory: int, scratch: int
) -> Plan:
    return Plan(
        pictures=sizes.pictures,
        folds=sizes.folds,
        patches=sizes.patches,
        dimensions=sizes.dimensions,
        coreset_dimensions=sizes.coreset_dimensions,
        vectors=sizes.vectors,
        way=way,
        chunks=chunks,
        held_chunks=held_chunks,
        share=share,
        at_least=sizes.at_least,
        least=0,
        merged=False,
        limit=sizes.limit,
        memory=memory,
        exact=sizes.whole(scratch=sizes.projected),
        scratch=scratch,
        copies=sizes.copies,
    )


def _cut(pictures: np.ndarray, most: int) -> list[np.ndarray]:
    """Cut into as few chunks as may be, of nearly equal size."""
    return np.array_split(pictures, -(-len(pictures) // most)) if len(pictures) else []


def _refusal(sizes: _Sizes, settings: Settings, default: bool, beside: int) -> str:
    """Say what would do, after trying it, in bytes of the whole process."""
    needed = sizes.base + max(sizes.bank, _BLOCKS)
    while _in_chunks(_with(sizes, limit=needed), settings) is None:
        needed += needed // 50
    got = f"{format_size(sizes.limit + beside)}{' (half of the free memory)' if default else ''}"
    text = (
        f"memory must be at least {format_size(needed + beside)} to build and search a bank of {sizes.vectors} vectors "
        f"of {sizes.dimensions} numbers, got {got}."
    )
    share = sizes.ratio
    while share > 1e-5 and _in_chunks(_with(sizes, ratio=share), settings) is None:
        share *= 0.9
    share = float(f"{share * 0.95:.1e}")
    if share > 1e-5:
        text += f" Or set coreset to {share:g} at most."
    return text


def _with(sizes: _Sizes, *, limit: int | None = None, ratio: float | None = None) -> _Sizes:
    return replace(sizes, limit=limit or sizes.limit, ratio=ratio or sizes.ratio)


def projected_patches(patches: Patches, plan: Plan, settings: Settings) -> Matrix:
    """Return what the coreset is chosen in. A picture at a time, so that every way of fitting gets the same bits."""
    with one_blas_thread():
        return project(patches, dimensions=plan.coreset_dimensions, seed=settings.seed)
