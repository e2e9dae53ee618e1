"""The checker of types that the test run puts on the package: it sees what it is there to see."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from tests import checked
from totalrecall.search.exact import ExactSearch
from totalrecall.types import Mask, Matrix, Patches


@checked
def same(left: Patches, right: Patches) -> Patches:
    return left + right if len(left) else right[:, :1].repeat(2, axis=1)


@checked
def calls_with_others(patches: Patches) -> Patches:
    same(patches[:1], patches[:1])
    return patches


@checked
def rows(patches: Patches, other: Patches) -> Iterator[Patches]:
    yield from (patches, other)


@checked
def half(number: "float", mask: "Mask | None" = None, later: "NotThere | None" = None) -> float:  # noqa: F821
    return number / 2 if number else "nothing"


@checked
@dataclass
class Sizes:
    weights: Matrix
    count: int

    @staticmethod
    @checked
    def twice(count: int) -> int:
        return 2 * count


def test_arrays_of_axes_that_do_not_fit_are_seen_and_each_call_has_axes_of_its_own():
    wide, narrow = np.ones((3, 4)), np.ones((3, 2))
    assert same(wide, wide).shape == calls_with_others(wide).shape == (3, 4)
    assert [one.shape for one in rows(wide, wide)] == [(3, 4)] * 2
    for call in (
        lambda: same(wide, narrow),
        lambda: same(np.ones((0, 4)), np.ones((0, 4))),  # what comes back has other axes
        lambda: same(wide, wide[0]),
        lambda: same(wide, wide.astype(int)),
        lambda: Sizes(wide[0], 3),
        lambda: half(1.0, wide),
    ):
        with pytest.raises(BeartypeCallHintViolation):
            call()
    with pytest.raises(TypeCheckError):
        next(rows(wide, narrow))


def test_plain_types_are_seen_and_a_whole_number_is_a_float():
    assert (half(3), Sizes.twice(2), half(1.0, None, "of a type that is there for mypy alone")) == (1.5, 4, 0.5)
    for call in (lambda: half("3"), lambda: half(0.0), lambda: Sizes(np.ones((1, 1)), "3"), lambda: Sizes.twice("2")):
        with pytest.raises(BeartypeCallHintViolation):
            call()
    assert str(inspect.signature(half)).startswith("(number: 'float', mask: 'Mask | None' = None")


def test_the_package_is_checked():
    search = ExactSearch(np.ones((4, 3), np.float32))
    with pytest.raises(BeartypeCallHintViolation):
        search.nearest(np.ones(3, np.float32), 1)
