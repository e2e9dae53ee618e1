"""history: every step can be undone, to the byte, whatever it changed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalrecall.detectors.history import Step, last_step, past_of, steps_of, undone, with_step
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import ModelFileError, SettingError

STEP = Step("add", "2026-11-22T12:00:00+00:00", "0.1.0", [{"path": "a.png", "sha256": "00"}], (3, 4), (1.5, None))


def contents(seed=0, rows=6):
    rng = np.random.default_rng(seed)
    header = {"kind": "patchcore", "pictures": [{"path": f"{i}.png"} for i in range(rows)], "recipe": {"size": 64}}
    tensors = {
        "bank.vectors": rng.standard_normal((rows, 3), dtype=np.float32),
        "bank.origin": rng.integers(0, 9, (rows, 3)).astype(np.int32),
        "calibration.scores": np.array([1.0, np.nan, -np.inf]),
        "evidence.vectors": rng.standard_normal((2, 3)).astype(np.float16),
    }
    return header, tensors


def same(a, b):
    return (
        a[0] == b[0]
        and a[1].keys() == b[1].keys()
        and all(one.dtype == b[1][name].dtype and one.tobytes() == b[1][name].tobytes() for name, one in a[1].items())
    )


def changed(before, **tensors):
    return dict(before[0]), {**before[1], **{name.replace("_", "."): one for name, one in tensors.items()}}


def grown(before):
    vectors = before[1]["bank.vectors"]
    header = {**before[0], "pictures": [*before[0]["pictures"], {"path": "new.png"}]}
    return header, changed(before, bank_vectors=np.concatenate([vectors, vectors[:2] + 1]))[1]


def shrunk(before):
    keep = [i for i in range(len(before[0]["pictures"])) if i % 3 != 1]
    header = {**before[0], "pictures": [before[0]["pictures"][i] for i in keep]}
    origin = before[1]["bank.origin"][keep] + 1
    return header, changed(before, bank_vectors=before[1]["bank.vectors"][keep], bank_origin=origin)[1]


def retyped(before):
    return changed(before, calibration_scores=before[1]["calibration.scores"].astype(np.float32))


def renamed(before):
    header = {key: value for key, value in before[0].items() if key != "recipe"} | {"taught": {"threshold": 2.0}}
    tensors = {name: one for name, one in before[1].items() if name != "evidence.vectors"}
    return header, {**tensors, "bank.basis": np.eye(3, dtype=np.float32)}


@pytest.mark.parametrize("change", [grown, shrunk, retyped, renamed, lambda before: before])
def test_a_step_is_undone_to_the_byte(change, tmp_path):
    before = contents()
    after = with_step(before, change(before), STEP)
    path = write_artifact(tmp_path / "after.trecall", *after)
    write_artifact(tmp_path / "again.trecall", *undone(read_artifact(path)))
    write_artifact(tmp_path / "before.trecall", *before)
    assert (tmp_path / "again.trecall").read_bytes() == (tmp_path / "before.trecall").read_bytes()


@given(st.lists(st.sampled_from([grown, shrunk, renamed, retyped]), max_size=5), st.integers(0, 9))
@settings(max_examples=30)
def test_any_steps_are_undone_one_by_one(changes, seed):
    states = [contents(seed)]
    for change in changes:
        if change is shrunk and len(states[-1][1]["bank.vectors"]) != len(states[-1][0]["pictures"]):
            continue
        states.append(with_step(states[-1], change(states[-1]), STEP))
    assert len(steps_of(states[-1][0])) == len(states) - 1
    for former in states[-2::-1]:
        states[-1] = undone(states[-1])
        assert same(states[-1], former)
    with pytest.raises(SettingError, match="nothing to undo: the model is as it was fitted"):
        undone(states[-1])


def test_what_grew_or_shrank_is_not_kept_twice():
    before = contents(rows=1000)
    keep = np.arange(1000) != 500
    smaller = {**before[1], "bank.vectors": before[1]["bank.vectors"][keep]}
    for after in (grown(before), (before[0], smaller)):
        kept = past_of(with_step(before, after, STEP))[1]
        assert sum(one.nbytes for one in kept.values()) < 100


def test_the_steps_tell_what_was_done():
    before = contents()
    after = with_step(before, grown(before), STEP)
    assert last_step(after) == STEP
    assert past_of(after)[0].keys() == {"history"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda step: step.pop("former"),
        lambda step: step.update(former=[]),
        lambda step: step["former"].update(cut={"gone": 3}),
        lambda step: step["former"].update(insert={"pictures": [["x", 1]]}),
        lambda step: step["former"].update(cut_tensors={"gone": 3}),
    ],
)
def test_a_damaged_history_is_named(damage):
    before = contents()
    header, tensors = with_step(before, grown(before), STEP)
    damage(header["history"][0])
    with pytest.raises(ModelFileError, match="history is damaged"):
        undone((header, tensors))
