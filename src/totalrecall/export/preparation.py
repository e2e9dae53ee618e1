"""Picture -> prepared picture inside a graph: what `pictures.geometry` does with OpenCV, to the grey level.

OpenCV shrinks by area and grows by interpolation between two pixels, in fixed point with 11 bits. Both are written as
weighted sums of the pixels ("taps") that each new row needs; where the sums are rounded, and which way, follows OpenCV.
Positions are whole numbers, so that nothing depends on the rounding of a large float. An axis that keeps its length
keeps each pixel as it is.
"""

from dataclasses import dataclass

import numpy as np

from totalrecall.export.graph import GraphWriter, Value
from totalrecall.pictures.geometry import BLANK, LONGEST, Recipe

__all__ = ["Axis", "Prepared", "prepare", "rounded_quotient"]

_LEAST_OVERLAP = 1e-3  # of a pixel: OpenCV leaves out less
_ONE = 2048.0  # of OpenCV's fixed point
_HALF_UP = 1e-3  # added where OpenCV rounds halves up; the numbers there are quarters


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a picture on its way to the prepared one; each length is an int64 scalar.

    Attributes:
        original: length of the picture.
        shrunk: length after shrinking, at most the original.
        resized: length of the canvas.
        start: of the window on the canvas; below 0 where the picture is padded.
        window: length of the window, which is the prepared picture's.
    """

    original: Value
    shrunk: Value
    resized: Value
    start: Value
    window: int

    @property
    def padding(self) -> Value:
        """How much of the window lies before the canvas."""
        return (self.start * -1).at_least(0)

    @property
    def hidden(self) -> Value:
        """How much of the canvas lies before the window."""
        return self.start.at_least(0)

    @property
    def shown(self) -> Value:
        """How much of the canvas the window shows."""
        return (self.resized - self.hidden).at_most((self.padding - self.window) * -1)

    def positions(self) -> Value:
        """Return the place on the canvas of each position of the window, int64 (window,); outside, the nearest."""
        graph = self.original.graph
        return (graph.range(self.window) + self.start).at_least(0).at_most(self.resized - 1)

    def inside(self) -> Value:
        """Return which positions of the window lie on the canvas, bool (window,)."""
        places = self.original.graph.range(self.window) + self.start
        return (places > -1) & (places < self.resized)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the rest of the graph needs of a prepared picture.

    Attributes:
        image: uint8 (1, side, side, 3).
        axes: height and width.
        roi: float32 (side, side), 1 where it shows the region of interest; None where all is inspected.
        original_roi: bool (h, w), the same on the picture itself.
        usable: bool (1,): whether such a picture may be judged; None where any may.
    """

    image: Value
    axes: tuple[Axis, Axis]
    roi: Value | None
    original_roi: Value | None
    usable: Value | None


def prepare(graph: GraphWriter, picture: Value, recipe: Recipe, *, shrinks: bool = False) -> Prepared:
    """Write the preparation of a picture.

    Args:
        graph: to write to.
        picture: uint8 (1, h, w, 3).
        recipe: how pictures are prepared.
        shrinks: neither axis grows, as is known of pictures of a fixed size; it spares the interpolation.
    """
    sides = graph.node("Shape", picture, kind="int64")
    height, width = (sides.take(graph.constant(np.array(axis, np.int64))) for axis in (1, 2))
    axes = _axes(height, width, recipe)
    flat = picture.reshape(height, width, 3)
    original_roi = _original_roi(graph, recipe, height, width)
    if original_roi is not None:
        flat = graph.where(original_roi.reshape(height, width, 1), flat, graph.constant(BLANK))
    canvas = _rounded(_shrunk(flat, axes), axes)
    canvas = _windowed(canvas, axes) if shrinks else _grown(canvas, axes)
    inside = None
    if recipe.resize == "letterbox":
        inside = axes[0].inside().reshape(-1, 1, 1) & axes[1].inside().reshape(1, -1, 1)
        canvas = graph.where(inside, canvas, graph.constant(BLANK.astype(np.float32)))
    side = axes[0].window
    roi = None if original_roi is None else _prepared_roi(original_roi, axes, inside)
    image = canvas.to("uint8").reshape(1, side, side, 3)
    return Prepared(image, axes, roi, original_roi, _usable(graph, recipe, height, width))


# ---------------------------------------------------------------------- geometry


def _axes(height: Value, width: Value, recipe: Recipe) -> tuple[Axis, Axis]:
    """Return both axes, as `Recipe.geometry` computes them."""
    graph, size, target = height.graph, recipe.size * recipe.tile, recipe.piece * recipe.tile
    axes = []
    for length in (height, width):
        if recipe.resize == "squash":
            resized, start = (graph.constant(np.array(number, np.int64)) for number in (size, 0))
        else:
            side = height.at_least(width) if recipe.resize == "letterbox" else height.at_most(width)
            resized = rounded_quotient(length * size, side).at_least(1)
            # subtle: Python's // rounds down, ONNX's Div towards zero; the two agree for what is not below 0
            start = (resized - target + 2 * size) / 2 - size
        axes.append(Axis(length, resized.at_most(length), resized, start, target))
    return axes[0], axes[1]


def rounded_quotient(number: Value, by: Value) -> Value:
    """Return a quotient of whole numbers rounded to the nearest, halves to the even, as Python's `round` does."""
    graph = number.graph
    up = (number * 2 + by) / (by * 2)
    is_half = (up * by * 2).equals(number * 2 + by)
    is_odd = (up - (up / 2) * 2).equals(1)
    return graph.where(is_half & is_odd, up - 1, up)


def _usable(graph: GraphWriter, recipe: Recipe, height: Value, width: Value) -> Value | None:
    """Return whether a picture is one that `Recipe.prepare` takes."""
    checks = []
    if recipe.resize == "crop":
        checks.append(height.at_least(width) < (height.at_most(width) * LONGEST + 1))
    if recipe.roi is not None:
        rows, columns = recipe.roi.shape
        apart = graph.node("Abs", width * rows - height * columns)
        checks.append(apart < ((height + width).at_least(rows + columns) + 1))
    if not checks:
        return None
    usable = checks[0] if len(checks) == 1 else checks[0] & checks[1]
    return usable.reshape(1)


# ---------------------------------------------------------------------- resizing


def _area_taps(length: Value, target: Value, whole: Value) -> tuple[Value, Value]:
    """Return which of `length` pixels each of `target` fewer covers, and its weights: two of (target, taps).

    The weights are shares of what is covered, or where OpenCV adds pixels as whole numbers, pixels.
    """
    graph = length.graph
    rows = graph.range(target).reshape(-1, 1)
    taps = graph.range((length + target - 1) / target + 1).reshape(1, -1)
    at = rows * length / target + taps
    begin, end = (rows * length).at_least(at * target), ((rows + 1) * length).at_most((at + 1) * target)
    overlap = (end - begin).to("float32")
    counts = overlap > target.to("float32") * _LEAST_OVERLAP
    weights = overlap / graph.where(whole, target, length).to("float32")
    return at.at_most(length - 1), graph.where(counts, weights, 0.0)


def _weighted(pixels: Value, taps: tuple[Value, Value]) -> Value:
    """Return sums of rows of (h, w, c) by their taps (n, k): float32 (n, w, c)."""
    indices, weights = taps
    graph = pixels.graph
    sides = graph.node("Shape", pixels, kind="int64")
    width, channels = (sides.slice(axis, axis + 1) for axis in (1, 2))
    rows = pixels.take(indices).to("float32")  # (n, k, w, c)
    flat = graph.node("Reshape", rows, graph.join([graph.constant(np.array([0, 0], np.int64)), width * channels]))
    sums = _weights_of_rows(weights).times(flat)  # (n, 1, k) @ (n, k, w*c) -> (n, 1, w*c)
    return graph.node("Reshape", sums, graph.join([graph.constant(np.array([-1], np.int64)), width, channels]))


def _weights_of_rows(weights: Value) -> Value:
    """Return weights (n, k) as n matrices of one row."""
    graph = weights.graph
    return graph.node("Unsqueeze", weights, graph.constant(np.array([1], np.int64)))


def _is_whole(axes: tuple[Axis, Axis]) -> Value:
    """Return whether a new pixel is so many whole pixels along both axes, bool."""
    both = [(axis.original / axis.shrunk * axis.shrunk).equals(axis.original) for axis in axes]
    return both[0] & both[1]


def _shrunk(pixels: Value, axes: tuple[Axis, Axis]) -> Value:
    """Return (h, w, c) shrunk by area to float32 (h', w', c): means, or where pixels are whole, sums."""
    for axis in axes:  # after each, height and width change places
        taps = _area_taps(axis.original, axis.shrunk, _is_whole(axes))
        pixels = _weighted(pixels, taps).transpose(1, 0, 2)
    return pixels


def _rounded(values: Value, axes: tuple[Axis, Axis]) -> Value:
    """Return the means rounded as OpenCV rounds them: halves to the even, but up where it has a path of its own."""
    graph = values.graph
    shrunk, original = (
        (getattr(axes[0], name) * getattr(axes[1], name)).to("float32") for name in ("shrunk", "original")
    )
    means = values * graph.where(_is_whole(axes), shrunk / original, 1.0)
    halved = [(axis.shrunk * 2).equals(axis.original) for axis in axes]
    up = graph.where(halved[0] & halved[1], _HALF_UP, graph.constant(np.array(0, np.float32)))
    return graph.node("Round", means + up)


def _between(axis: Axis) -> tuple[Value, Value, Value]:
    """Return of each position of the window the pixel before it, which may be -1, the share of the next, and the last.

    Returns:
        int64 (window,), float32 (window,), and the index of the last pixel.
    """
    double = axis.resized * 2
    number = (axis.positions() * 2 + 1) * axis.shrunk - axis.resized
    before = (number + double) / double - 1  # rounds down: the number is above -2 * resized
    return before, (number - before * double).to("float32") / double.to("float32"), axis.shrunk - 1


def _windowed(pixels: Value, axes: tuple[Axis, Axis]) -> Value:
    """Return the window of a canvas that needs no interpolation."""
    return pixels.take(axes[0].positions()).take(axes[1].positions(), axis=1)


def _grown(pixels: Value, axes: tuple[Axis, Axis]) -> Value:
    """Return the window of the canvas, interpolated in OpenCV's fixed point: width first, then height.

    All numbers are whole and below 2^24, so float32 holds them exactly.
    """
    graph = pixels.graph
    before, share, last = _between(axes[1])
    edge = (before < 0).to("int64") + (before > (last - 1)).to("int64")  # there OpenCV takes one pixel alone
    share = graph.where(edge > 0, 0.0, share)
    parts = []
    for at, weight in ((before, _fixed(share * -1 + 1)), (before + 1, _fixed(share))):
        parts.append(pixels.take(at.at_least(0).at_most(last), axis=1) * weight.reshape(1, -1, 1))
    wide = ((parts[0] + parts[1]) * (1 / 16)).floor()
    before, share, last = _between(axes[0])
    parts = []
    for at, weight in ((before, _fixed(share * -1 + 1)), (before + 1, _fixed(share))):
        parts.append(_product_of_high_bits(wide.take(at.at_least(0).at_most(last)), weight.reshape(-1, 1, 1)))
    return ((parts[0] + parts[1] + 2) * 0.25).floor()


def _fixed(share: Value) -> Value:
    return share.graph.node("Round", share * _ONE)


def _product_of_high_bits(number: Value, weight: Value) -> Value:
    """Return number * weight / 65536 rounded down; the product itself would need 27 bits, so it is taken in two."""
    high = (number * (1 / 256)).floor()
    low = number - high * 256
    return ((high * weight + (low * weight * (1 / 256)).floor()) * (1 / 256)).floor()


# ---------------------------------------------------------------------- region of interest


def _original_roi(graph: GraphWriter, recipe: Recipe, height: Value, width: Value) -> Value | None:
    """Return the region of interest at the picture's size, bool (h, w), by OpenCV's exact nearest neighbour."""
    if recipe.roi is None:
        return None
    mask = graph.constant(recipe.roi.astype(np.uint8), "region_of_interest")
    for axis, (length, target) in enumerate(zip(recipe.roi.shape, (height, width), strict=True)):
        step = (target / 2 + (length << 16)) / target
        first = step / 2 - length % 2
        at = (graph.range(target) * step + first) / (1 << 16)
        mask = mask.take(at.at_most(length - 1), axis=axis)
    return mask.to("bool")


def _prepared_roi(original_roi: Value, axes: tuple[Axis, Axis], inside: Value | None) -> Value:
    """Return where the prepared picture shows any of the region of interest, float32 (side, side)."""
    sides = [axis.original for axis in axes]
    mask = _shrunk(original_roi.to("uint8").reshape(*sides, 1), axes)
    for axis in (1, 0):
        before, share, last = _between(axes[axis])
        shape = (1, -1, 1) if axis else (-1, 1, 1)
        low = mask.take(before.at_least(0).at_most(last), axis=axis) * (share * -1 + 1).reshape(*shape)
        high = mask.take((before + 1).at_least(0).at_most(last), axis=axis) * share.reshape(*shape)
        mask = low + high
    seen = mask > 0
    seen = seen if inside is None else seen & inside
    side = axes[0].window
    return seen.to("float32").reshape(side, side)
