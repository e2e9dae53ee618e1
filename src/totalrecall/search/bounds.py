"""Lower bounds of the distances of queries to fixed vectors, all of them by one OpenVINO graph.

With an orthonormal basis of r of the d dimensions, chosen to hold most of the vectors' variance, c the coordinates in
it and rho the length of what it leaves over,

    |q - b|^2  >=  |c_q - c_b|^2 + (rho_q - rho_b)^2  =  |q|^2 + |b|^2 - 2 (c_q . c_b + rho_q rho_b)

since the left-over parts can at best point the same way (Cauchy-Schwarz). Without a basis c is the vector itself. So a
bound is one product of r + 1 numbers; |q|^2 is left out of it, and the graph gives it separately.

Where the processor computes in bfloat16 the product runs in it, at twice to many times the speed. Coordinates rounded
to c' err by |c - c'|, which changes a product by no more than |c_q - c_q'| |c_b'| + |c_q| |c_b - c_b'|. A query's
coordinates err by at most u |c_q|, u = 2^-8; a vector's error is known. So |c_q| times (u |c_b'| + |c_b - c_b'|) is one
more number in the product, and |b|^2 is the sum of three rounded ones. Sums are in float32; the result is rounded once
more, which `above` allows for. What a graph gives is compared with that on a few queries before it is used.
"""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.engines.runtime import capabilities, core, matrix_units, openvino_package
from totalrecall.system.threads import cores, undivided
from totalrecall.types import Matrix, Patches

__all__ = ["BLOCK", "BoundsGraph", "all_dimensions_pay"]

BLOCK = 64  # vectors, the lowest of whose bounds is given as well
_ROUNDING = 2.0**-8  # of a number to bfloat16, relative
_UP = 1 + 1.01 * _ROUNDING  # a number times this is no less than itself once rounded
_FAR = 3e38  # in place of |b|^2 where a block has fewer vectors
_BATCH = 8192  # vectors prepared at a time
_PARTS = 3  # rounded numbers whose sum is |b|^2: they have all 24 digits
_STEP = (
    32  # numbers of bfloat16 that matrix units take at once; a product of 134 took three times as long as one of 160
)
_PROBES, _PROBED = 16, 512  # queries and vectors that a new graph is tried on

Bounds = npt.NDArray[Any]


def all_dimensions_pay(shape: tuple[int, int], width: int) -> bool:
    """Tell whether this processor bounds vectors (m, d) sooner in all dimensions than in `width` of them.

    Matrix units make the product so cheap that finding the coordinates, and measuring the vectors that fewer dimensions
    leave, costs more, unless the vectors are many. Prices in multiplications of the product, on two cores of an Intel
    Xeon with AMX, 1.1 ps each: one of the coordinates 10; for each query about three vectors, 440 a number.
    """
    vectors, dimensions = shape
    return matrix_units() and vectors * (dimensions - width) <= dimensions * (10 * width + 3 * 440)


class BoundsGraph:
    """A compiled graph: queries -> bounds. Any thread may call it.

    Args:
        vectors: (m, d) float32.
        mean: (d,) their mean, the origin of all coordinates: near it rounding is smallest.
        norms: (m,) squared lengths from there.
        basis: (d, r) orthonormal; None takes all d dimensions.
        slack: what float32 can do to a product of two unit vectors.
        precision: "bf16" or "f32"; by default bf16 where the processor computes in it natively.
        one_core: each call computes on one core, for callers that keep the others busy themselves: threads of the graph
            would wait for a core that is taken, and spin meanwhile. Else a call has all cores.
    """

    def __init__(
        self,
        vectors: Patches,
        mean: npt.NDArray[Any],
        norms: npt.NDArray[Any],
        basis: Matrix | None,
        slack: float,
        *,
        precision: str | None = None,
        one_core: bool = False,
    ) -> None:
        self.rounded = (precision or ("bf16" if "BF16" in capabilities() else "f32")) == "bf16"
        self._up = _UP if self.rounded else 1.0
        self._slack, self._basis = slack, basis
        columns = np.concatenate(
            [self._columns(vectors[at : at + _BATCH], mean, norms[at : at + _BATCH], basis) for at in _starts(vectors)]
        )
        padding = np.zeros((-len(vectors) % BLOCK, columns.shape[1]), columns.dtype)
        if len(padding):
            first = len(mean) + 1 if basis is None else basis.shape[1] + 2  # of the parts of |b|^2
            padding[:, first] = self._stored(np.full(len(padding), _FAR, np.float32))
            columns = np.concatenate([columns, padding])
        self._columns_kept = columns  # subtle: the graph reads them where they are, some of it at its first run
        self._graph = self._made(columns, mean, basis)
        self.compile(one_core=one_core)

    def compile(self, *, one_core: bool) -> None:
        """Compile the graph for one kind of caller, see `one_core` above; a copy may so be for the other kind."""
        # f32 leaves the precisions as they are written here
        settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32"}
        if one_core:
            settings |= {"NUM_STREAMS": cores(), "INFERENCE_NUM_THREADS": cores()}
        else:
            settings["PERFORMANCE_HINT"] = "LATENCY"
        with undivided():
            self._model = core().compile_model(self._graph, "CPU", settings)
        self._own = threading.local()

    def of(self, queries: Patches) -> tuple[Bounds, Bounds, npt.NDArray[Any]]:
        """Return the bounds (q, m'), the lowest of each block (q, m' / BLOCK), and the queries' squared lengths (q,).

        m' is m rounded up to whole blocks. The first two are as the graph stores them, see `numbers`. They are the
        calling thread's own, to write to as well, until it calls again.
        """
        taken = np.require(queries, np.float32, ["C", "W"])
        with undivided():
            request = getattr(self._own, "request", None)
            if request is None:
                request = self._own.request = self._model.create_infer_request()
            request.set_input_tensor(0, openvino_package().Tensor(taken, shared_memory=True))
            request.infer(share_outputs=True)  # else it copies what comes out, 4 MB for a picture
        bounds, lowest, norms = (request.get_output_tensor(i).data for i in range(3))
        if self.rounded:
            bounds, lowest = bounds.view(np.uint16), lowest.view(np.uint16)
        return bounds, lowest, norms[:, 0]

    def numbers(self, stored: Bounds) -> npt.NDArray[Any]:
        """Return bounds as float32: bfloat16 is its upper half."""
        if not self.rounded:
            return stored
        return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)

    @property
    def infinity(self) -> float:
        """What to store for a bound that shall never be the lowest."""
        return 0x7F80 if self.rounded else np.inf

    def above(self, limit: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what a bound is no higher than if before the last rounding it was no higher than the limit."""
        return limit + np.float32(1.01 * _ROUNDING) * np.abs(limit) if self.rounded else limit

    def agrees(self, vectors: Patches, mean: npt.NDArray[Any], norms: npt.NDArray[Any]) -> bool:
        """Tell whether the graph computes what it should, on a few queries and some of the vectors that it was made of.

        Another version or processor may round elsewhere; a graph that errs by more than was allowed for is of no use.
        """
        rows = np.linspace(0, len(vectors) - 1, min(_PROBED, len(vectors))).astype(int)
        # halfway from one vector to another: not at a distance of zero, nor far away
        queries = (vectors[rows[:_PROBES]] + vectors[rows[::-1][:_PROBES]]) / 2
        stored, lowest, lengths = self.of(np.ascontiguousarray(queries))
        bounds = self.numbers(stored)
        blocks = bounds.reshape(len(bounds), -1, BLOCK).min(axis=2)
        left = self._reduced(queries.astype(np.float64) - mean, self._basis)
        right = self._reduced(vectors[rows].astype(np.float64) - mean, self._basis)
        expected = norms[rows] - 2 * left @ right.T
        sizes = np.sqrt((left**2).sum(axis=1))[:, None] + np.sqrt(norms.max())
        margin = 2 * self._slack * sizes**2
        near = bounds[:, rows] <= self.above(expected + margin)
        if self.rounded:  # each factor, the result, and the number that allows for that
            margin = margin + _ROUNDING * (9 * np.abs(left) @ np.abs(right).T + 3 * sizes**2)
        near &= bounds[:, rows] >= expected - margin
        return bool(near.all() and np.array_equal(blocks, self.numbers(lowest)) and np.isfinite(lengths).all())

    def _columns(
        self, vectors: Patches, mean: npt.NDArray[Any], norms: npt.NDArray[Any], basis: Matrix | None
    ) -> Bounds:
        """Return the vectors' side of the product, (m, K), as it is stored."""
        reduced = self._reduced(vectors - mean, basis)
        coordinates = reduced if basis is None else reduced[:, :-1]
        parts = [-2 * self._numbers_near(coordinates)]
        if basis is not None:
            parts.append(-2 * reduced[:, -1:] * np.float32(self._up))
        error = np.zeros(len(coordinates), np.float32)
        if self.rounded:
            near = parts[0] / -2
            error = np.linalg.norm(coordinates - near, axis=1) + _ROUNDING * np.linalg.norm(near, axis=1)
            error *= 1 + self._slack
        parts.append(-2 * np.float32(self._up) * error[:, None])
        rest = norms.astype(np.float32)
        for _ in range(_PARTS):
            part = self._numbers_near(rest)
            parts.append(part[:, None])
            rest = rest - part
        parts.append(np.zeros((len(coordinates), self._unused(coordinates.shape[1], basis)), np.float32))
        return self._stored(np.concatenate(parts, axis=1))

    def _unused(self, width: int, basis: Matrix | None) -> int:
        """Return how many numbers, all zero, make a product of `width` coordinates and what comes with them whole."""
        used = width + _PARTS + (1 if basis is None else 2)
        return -used % (_STEP if self.rounded else 2)

    def _reduced(self, centred: npt.NDArray[Any], basis: Matrix | None) -> npt.NDArray[Any]:
        """Return the coordinates, and with a basis the length of what it leaves over: (n, r + 1)."""
        if basis is None:
            return centred
        coordinates = centred @ basis  # (n, d) @ (d, r) -> (n, r)
        norms = np.einsum("nd,nd->n", centred, centred)
        lengths = np.einsum("nr,nr->n", coordinates, coordinates)
        # subtle: the rest must never be underestimated, or the bound could exceed the distance; hence the slack
        rest = np.sqrt(np.maximum(norms - lengths, 0) + self._slack * norms)
        return np.concatenate([coordinates, rest[:, None]], axis=1)

    def _stored(self, numbers: npt.NDArray[Any]) -> Bounds:
        """Return numbers as the graph takes them: as float32, or rounded to bfloat16, to nearest, ties to even."""
        if not self.rounded:
            return numbers.astype(np.float32)
        bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    def _numbers_near(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.numbers(self._stored(numbers))

    def _made(self, columns: Bounds, mean: npt.NDArray[Any], basis: Matrix | None) -> Any:
        openvino = openvino_package()
        import openvino.opset13 as op

        def number(value: float) -> Any:
            return op.constant(np.float32(value))

        along = op.constant(np.array([1]))
        queries = op.parameter([-1, len(mean)], np.float32)
        centred = op.subtract(queries, op.constant(mean[None]))
        length = op.reduce_l2(centred, along, True)  # one pass over all numbers, where squares and their sum take two
        norms = op.multiply(length, length)
        coordinates, lengths = centred, [length]
        if basis is not None:
            coordinates = op.matmul(centred, op.constant(np.ascontiguousarray(basis)), False, False)
            inside = op.reduce_l2(coordinates, along, True)
            rest = op.maximum(op.subtract(norms, op.multiply(inside, inside)), number(0))
            lengths = [op.sqrt(op.add(rest, op.multiply(norms, number(self._slack)))), inside]
        # [lengths | ones | zeros], as sums of a column times a row: so small, each operation costs its call
        places = np.eye(
            len(lengths) + _PARTS + self._unused(coordinates.get_output_partial_shape(0)[1].get_length(), basis)
        )
        ones = places[len(lengths) :][:_PARTS].sum(axis=0, keepdims=True)
        others = op.constant(ones.astype(np.float32))
        for column, place in zip(lengths, self._up * places, strict=False):
            others = op.add(others, op.multiply(column, op.constant(place[None].astype(np.float32))))
        right = op.constant(columns)
        if self.rounded:  # before they are joined: half as much to copy
            coordinates, others = op.convert(coordinates, "bf16"), op.convert(others, "bf16")
            right = op.constant(openvino.Tensor(columns, openvino.Shape(columns.shape), openvino.Type.bf16))
        product = op.concat([coordinates, others], 1)
        bounds = op.matmul(product, right, False, True)  # (q, K) @ (K, m') -> (q, m')
        blocks = op.reshape(bounds, op.constant(np.array([-1, len(columns) // BLOCK, BLOCK])), False)
        lowest = op.reduce_min(blocks, op.constant(np.array([2])), False)
        return openvino.Model([column.output(0) for column in (bounds, lowest, norms)], [queries], "bounds")


def _starts(vectors: Patches) -> range:
    return range(0, len(vectors), _BATCH)
