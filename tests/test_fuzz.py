"""A few hostile files of each kind; `python -m benchmarks.fuzz` tries thousands."""

import pytest
from benchmarks import fuzz


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    patch = pytest.MonkeyPatch()
    patch.setenv("TOTALRECALL_HOME", str(folder))
    yield fuzz.Reader("pictures", folder)
    patch.undo()


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_hostile_file_ends_in_a_verdict_or_an_error_of_ours(kind, reader, monkeypatch):
    monkeypatch.setattr(reader, "kind", kind)
    outcomes = [reader.read(number, seed=2) for number in range(30)]
    assert {said for said, _ in outcomes} <= {"verdict", "error 1", "error 2", "error 3"}, outcomes


def test_what_is_not_ours_would_be_seen(reader, monkeypatch):
    monkeypatch.setattr("benchmarks.fuzz.mutate", lambda *_: 1 // 0)
    assert reader.read(0, seed=2)[0] == "UNEXPECTED"


def test_the_same_seed_makes_the_same_file():
    import numpy as np

    one, other = (fuzz.mutate(fuzz._picture(rng), rng) for rng in (np.random.default_rng([1, 2]) for _ in range(2)))
    assert one == other


def test_a_picture_that_pillow_refuses_is_one_that_an_independent_decoder_refuses():
    assert "Pillow" in fuzz.refusals(b"no picture")
