"""The queue of the station: bounded, fair, and nobody waits for ever."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.striped import png
from totalrecall.errors import BusyError, NotFoundError, PictureError, TotalRecallError
from totalrecall.pictures.decode import open_picture
from totalrecall.station.judging import inspecting
from totalrecall.station.judging.inspecting import Inspector, Waiting
from totalrecall.system.threads import cores, in_worker


class UnforeseenError(Exception):
    """An error that the package does not know."""


class Judge:
    """Gives each picture itself as its result; waits at a gate where it is told to."""

    def __init__(self, gate=None):
        self.gate, self.on_one_core = gate, []

    def predict(self, picture, *, conditions):
        assert conditions is False
        self.on_one_core.append(in_worker())
        if self.gate is not None:
            self.gate.wait(30)
        if picture == b"broken":
            raise PictureError("bytes[0]: it is broken.")
        if picture == b"fault":
            raise UnforeseenError("a fault of ours")
        return picture


def asked(inspector, picture, model="a", told=None):
    """Submit a picture; returns a list that holds what came of it, and an event for when it is there."""
    got, there = [] if told is None else told, threading.Event()

    def done(judged):
        got.append(judged)
        there.set()

    inspector.submit(Waiting(picture, "its name", model, False, done))
    return got, there


@pytest.fixture
def opened():
    inspectors = []

    def make(judges, limit=64):
        inspector = Inspector(lambda name: SimpleNamespace(name=name, judge=judges[name]), limit)
        inspectors.append(inspector)
        return inspector

    yield make
    for inspector in inspectors:
        inspector.close()


def test_each_picture_gets_its_own_outcome(opened):
    inspector = opened({"a": Judge()})
    told = [(number, *asked(inspector, bytes([number]))) for number in range(40)]
    for number, got, there in told:
        assert there.wait(30)
        assert got[0].outcome == bytes([number])


def test_one_more_than_the_limit_is_refused_and_room_comes_back(opened):
    gate = threading.Event()
    inspector = opened({"a": Judge(gate)}, limit=3)
    waiting = []
    with pytest.raises(BusyError, match="allowed are 3"):
        waiting.extend(asked(inspector, b"x") for _ in range(100))  # some are under way already
    assert inspector.waiting <= 3
    gate.set()
    assert all(there.wait(30) for _, there in waiting)
    got, there = asked(inspector, b"later")
    assert there.wait(30)
    assert got[0].outcome == b"later"


def test_several_are_let_in_all_or_none(opened):
    gate = threading.Event()
    inspector = opened({"a": Judge(gate)}, limit=4)
    pictures = [Waiting(b"x", "", "a", False, print) for _ in range(5)]
    with pytest.raises(BusyError):
        inspector.submit(*pictures)
    assert inspector.waiting == 0
    gate.set()


def test_models_take_turns(opened):
    gate = threading.Event()
    judges = {"busy": Judge(gate), "rare": Judge()}
    inspector = opened(judges, limit=1000)
    told = []
    many = [asked(inspector, b"m", "busy", told) for _ in range(200)]
    rare = asked(inspector, b"r", "rare", told)
    gate.set()
    assert rare[1].wait(30)
    assert all(there.wait(30) for _, there in many)
    at = next(number for number, judged in enumerate(told) if judged.waiting.model == "rare")
    assert at < 100  # as many as there are threads were under way, and a few more may have ended before it


def test_a_broken_picture_is_named_as_its_sender_named_it(opened):
    gate = threading.Event()
    inspector = opened({"a": Judge(gate)})
    waiting = [asked(inspector, picture) for picture in (b"1", b"2", b"broken", b"4")]
    gate.set()
    outcomes = []
    for got, there in waiting:
        assert there.wait(30)
        outcomes.append(got[0].outcome)
    assert str(outcomes[2]) == "its name: it is broken."
    assert outcomes[3] == b"4"


def test_a_fault_of_ours_is_told_to_all_that_wait_and_the_next_are_judged(opened):
    gate = threading.Event()
    inspector = opened({"a": Judge(gate)})
    waiting = [asked(inspector, picture) for picture in (b"fault", b"2", b"3", b"4")]
    gate.set()
    for got, there in waiting:
        assert there.wait(30)
        assert isinstance(got[0].outcome, (bytes, TotalRecallError))
    assert "UnforeseenError" in str(waiting[0][0][0].outcome)
    got, there = asked(inspector, b"next")
    assert there.wait(30)
    assert got[0].outcome == b"next"


def test_a_model_that_went_away_is_told(opened):
    def gone(name):
        raise NotFoundError(f"There is no {name}.")

    inspector = Inspector(gone, 8)
    got, there = asked(inspector, b"x")
    assert there.wait(30)
    assert isinstance(got[0].outcome, NotFoundError)
    inspector.close()


def test_closing_judges_what_waits_and_takes_no_more():
    gate = threading.Event()
    judge = Judge(gate)
    inspector = Inspector(lambda name: SimpleNamespace(name=name, judge=judge), 64)
    waiting = [asked(inspector, b"x") for _ in range(20)]
    closing = threading.Thread(target=inspector.close)
    closing.start()
    gate.set()
    closing.join(30)
    assert not closing.is_alive()
    assert all(there.is_set() for _, there in waiting)
    with pytest.raises(BusyError, match="stopping"):
        asked(inspector, b"late")


def test_a_picture_alone_has_all_cores_and_of_several_each_has_one(opened):
    gate = threading.Event()
    judge = Judge(gate)
    inspector = opened({"a": judge})
    first = asked(inspector, b"1")
    while not judge.on_one_core:
        time.sleep(0.001)
    others = [asked(inspector, b"x") for _ in range(10)]
    gate.set()
    assert all(there.wait(30) for _, there in [first, *others])
    assert judge.on_one_core == [False] + 9 * [True] + judge.on_one_core[-1:]  # the last may be alone again
    assert not in_worker()


def test_large_pictures_are_judged_as_many_at_a_time_as_there_is_room_for(opened, monkeypatch):
    picture = png(np.zeros((30, 40, 3), np.uint8))
    assert open_picture(picture, "x").header.width == 40
    monkeypatch.setattr(inspecting, "PIXELS_AT_ONCE", 2 * 30 * 40 - 1)  # one has room, two have not
    under_way, most = [], []

    class Slow:
        def predict(self, picture, *, conditions):
            under_way.append(picture)
            most.append(len(under_way))
            time.sleep(0.01)
            under_way.pop()
            return conditions

    inspector = opened({"a": Slow()})
    told = [asked(inspector, picture) for _ in range(3 * cores() + 3)]
    assert all(there.wait(30) for _, there in told)
    assert max(most) == 1
    monkeypatch.setattr(inspecting, "PIXELS_AT_ONCE", 1)  # a larger one is judged all the same
    inspector = opened({"a": Slow()})
    got, there = asked(inspector, picture)
    assert there.wait(30)
    assert got[0].outcome is False


def test_what_came_of_pictures_is_told_in_their_order_model_by_model(opened):
    first = threading.Event()

    class Uneven:
        def predict(self, picture, *, conditions):
            if picture == b"0" and not conditions:
                first.wait(30)
            return picture

    inspector = opened({"a": Uneven(), "b": Judge()})
    told = []
    a = [asked(inspector, b"%d" % number, "a", told) for number in range(6)]
    b = [asked(inspector, b"%d" % number, "b", told) for number in range(6)]
    assert all(there.wait(30) for _, there in b)  # another model does not wait
    assert not any(there.is_set() for _, there in a)
    first.set()
    assert all(there.wait(30) for _, there in a)
    for model in ("a", "b"):
        assert [one.outcome for one in told if one.waiting.model == model] == [b"%d" % number for number in range(6)]


def test_a_slow_picture_lets_only_so_many_be_judged_before_their_turn_and_nobody_is_forgotten_at_the_end():
    first, judged = threading.Event(), []

    class Uneven:
        def predict(self, picture, *, conditions):
            assert not conditions
            if picture == b"slow":
                first.wait(30)
            judged.append(picture)
            return picture

    inspector = Inspector(lambda name: SimpleNamespace(name=name, judge=Uneven()), 1000)
    told = []
    waiting = [asked(inspector, b"slow", "a", told)] + [asked(inspector, b"%d" % at, "a", told) for at in range(300)]
    most = inspecting._AHEAD * len(inspector._workers) - 1
    end = time.monotonic() + 30
    while len(judged) < most and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.05)
    assert len(judged) == most
    assert told == []
    closing = threading.Thread(target=inspector.close)
    closing.start()
    first.set()
    closing.join(60)
    assert not closing.is_alive()
    assert [one.outcome for one in told] == [b"slow", *(b"%d" % at for at in range(300))]
    assert all(there.is_set() for _, there in waiting)
