"""benchmarks.fuzz_models: mutated model files are used, or refused in one line; here a few of them."""

import pytest
from benchmarks import fuzz_models

from totalrecall import load_detector


@pytest.fixture(scope="module")
def bases():
    return fuzz_models.base_models()


def test_the_same_seed_gives_the_same_files(bases):
    one, two = (list(fuzz_models.mutated_models(bases, 20, seed=3)) for _ in range(2))
    assert one == two
    assert list(fuzz_models.mutated_graphs(bases[0], 5, seed=1)) == list(
        fuzz_models.mutated_graphs(bases[0], 5, seed=1)
    )


def test_a_file_that_was_taken_apart_and_joined_is_the_same_and_new_hashes_fit(bases, tmp_path):
    for base in bases:
        assert fuzz_models.joined(*fuzz_models.split(base)) == base
    header, listed, body = fuzz_models.split(bases[0])
    path = tmp_path / "m.trecall"
    path.write_bytes(fuzz_models.joined({**header, "library": "another"}, listed, body))
    assert load_detector(path)


def test_mutated_files_are_used_or_refused_in_one_line(bases, tmp_path):
    checker, kinds = fuzz_models.Checker(tmp_path), set()
    path = tmp_path / "m.trecall"
    for how, data in fuzz_models.mutated_models(bases, 25, seed=5):
        path.write_bytes(data)
        outcome = checker.check(path, limit=120)  # a busy machine must not turn the test red
        assert not outcome.fault, (how, outcome)
        kinds.add(outcome.kind)
    checker.close()
    assert {"used", "refused"} <= kinds
