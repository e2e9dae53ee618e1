"""The golden check: known pictures must come out as recorded, else the station says so and can hold the model."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.line_ready import wait_until
from tests.stations import started
from tests.striped import defect_picture, good_picture, odd_picture
from totalrecall import load_detector
from totalrecall.errors import ConflictError, HistoryError, NotFoundError, PictureError, SettingError
from totalrecall.station.judging.caption import Caption
from totalrecall.station.quality.golden import TOLERANCE
from totalrecall.station.store.records import NOT_PRODUCTION, Actor, Filter
from totalrecall.station.store.tables import golden

ANNA = Actor("anna", "engineer")


@pytest.fixture
def place(fitted, tmp_path):
    return Path(shutil.copy(fitted, tmp_path / "part.trecall"))


@pytest.fixture
def station(place, tmp_path):
    with started(tmp_path / "station", place, hold_on_golden_failure=True) as (station, _):
        yield station


def with_pictures(station):
    """A station with a good and a defective golden picture; returns what is told of them."""
    return [
        station.golden.add("part", good_picture(0), expected="good", name="good.png", actor=ANNA),
        station.golden.add("part", defect_picture(0), expected="defect", name="bad.png", actor=ANNA),
    ]


def alter(station, **values):
    """Write over what is recorded of all golden pictures."""
    station.database.write(lambda connection: connection.execute(golden.update().values(**values))).result()


def checks(station, count):
    """The checks of the model, once there are so many."""
    deadline = time.monotonic() + 60
    while len(runs := station.golden.runs("part")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return runs


def test_another_rate_of_a_recipe_has_the_golden_pictures_judged_at_once(station):
    with_pictures(station)
    file = station.settings.folder / "recipes.toml"
    file.write_text('[product.a]\nmodel = "part"\n\n[product.b]\nmodel = "part"\nfalse_alarm_rate = 0.3\n')
    station.recipes.look()
    station.recipes.select("a", ANNA)  # at the model's own rate, as before
    station.recipes.select("b", ANNA)
    assert checks(station, 1)[0]["passed"]
    file.write_text('[product.a]\nmodel = "part"\n\n[product.b]\nmodel = "part"\nfalse_alarm_rate = 0.9\n')
    station.recipes.look()
    failed = checks(station, 2)[0]
    assert not failed["passed"]
    assert "good.png (expected was good, and it is judged defect)" in failed["words"]
    assert "failed for" in station.holds["part"]
    station.recipes.select(None, ANNA)  # the model's own rate again
    assert checks(station, 3)[0]["passed"]
    assert "part" not in station.holds
    assert len(station.golden.runs("part")) == 3


def test_a_check_passes_where_everything_comes_out_as_recorded(station):
    one, two = with_pictures(station)
    assert station.golden.all("part") == [one, two]
    assert one["score"] == pytest.approx(load_detector(station.shelf.get("part").path).predict(good_picture(0)).score)
    run = station.golden.check("part", ANNA)
    assert run["passed"]
    assert run["recorded"] == 0
    assert [(row["name"], row["verdict"], row["passed"]) for row in run["pictures"]] == [
        ("good.png", "good", True),
        ("bad.png", "defect", True),
    ]
    assert station.golden.runs("part") == [run]
    assert run["words"] == "The golden check of model part passed: 2 golden pictures came out as recorded."
    assert station.holds == {}
    assert station.golden.picture(one["id"]) == good_picture(0)


@pytest.mark.parametrize(("share", "passes"), [(1 + 0.9 * TOLERANCE, True), (1 + 1.2 * TOLERANCE, False)])
def test_a_score_by_the_same_model_may_differ_by_a_thousandth(station, share, passes):
    with_pictures(station)
    alter(station, score=golden.c.score * share)
    run = station.golden.check("part")
    assert run["passed"] is passes
    assert all((row["why"] is None) is passes for row in run["pictures"])
    if not passes:
        assert "by the same model" in run["words"]


def test_a_failed_check_holds_the_model_until_one_passes(station):
    with_pictures(station)
    recorded = [row["score"] for row in station.golden.all("part")]
    alter(station, score=9.0)
    assert not station.golden.check("part")["passed"]
    with pytest.raises(ConflictError, match=r"Model part is held: The golden check .* failed for 2 of 2"):
        station.inspect(good_picture(1))
    for row, score in zip(station.golden.all("part"), recorded, strict=True):
        change = golden.update().where(golden.c.key == row["id"]).values(score=score)
        station.database.write(lambda connection, change=change: connection.execute(change)).result()
    assert station.golden.check("part")["passed"]
    assert station.inspect(good_picture(1)).verdict == "good"


def test_an_engineer_releases_a_held_model_with_a_reason(station):
    with_pictures(station)
    with pytest.raises(ConflictError, match="is not held"):
        station.golden.release("part", "no reason", ANNA)
    alter(station, score=9.0)
    station.golden.check("part")
    with pytest.raises(SettingError, match="reason must have 3 to 500 letters"):
        station.golden.release("part", "  ", ANNA)
    station.golden.release("part", "new processor, scores compared by hand", ANNA)
    assert station.inspect(good_picture(1)).verdict == "good"
    row = station.trail.rows(limit=1)[0]
    assert (row.actor, row.action, row.subject) == ("anna", "release", "part")
    assert "compared by hand" in row.details


def test_without_the_setting_a_failure_is_said_and_holds_nothing(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        with_pictures(station)
        alter(station, score=9.0)
        assert not station.golden.check("part")["passed"]
        assert station.holds == {}
        assert station.inspect(good_picture(1)).verdict == "good"
        assert station.trail.rows(limit=1)[0].action == "golden check failed"


def test_after_a_change_of_the_model_the_verdict_counts_and_scores_are_recorded_anew(station, place):
    with_pictures(station)
    before = [(row["score"], row["model_sha256"]) for row in station.golden.all("part")]
    detector = load_detector(place)
    detector.update(add=[odd_picture(0)])
    detector.save(place)
    station.shelf.reload("part")
    run = station.golden.check("part")
    assert run["passed"], run["words"]
    runs = [one for one in station.golden.runs("part") if one["recorded"]]  # the station may have checked first
    assert [one["recorded"] for one in runs] == [2]
    assert "recorded anew" in runs[0]["words"]
    after = station.golden.all("part")
    assert {row["model_sha256"] for row in after} == {station.shelf.get("part").sha256}
    assert [row["score"] for row in after] == [row["score"] for row in run["pictures"]]
    assert [row["model_sha256"] for row in after] != [sha256 for _, sha256 in before]
    assert station.golden.check("part")["recorded"] == 0


def test_a_model_that_misses_a_known_defect_fails_and_keeps_the_old_scores(station, place):
    with_pictures(station)
    before = station.golden.all("part")
    detector = load_detector(place)
    detector.update(threshold=50.0)
    detector.save(place)
    station.shelf.reload("part")
    run = station.golden.check("part")
    assert [row["why"] for row in run["pictures"]] == [None, "expected was defect, and it is judged good"]
    assert station.golden.all("part") == before
    assert "part" in station.holds


def test_every_station_checks_at_its_start_and_may_be_held_by_it(place, tmp_path):
    with started(tmp_path / "station", place) as (station, _):
        with_pictures(station)
        assert station.golden.runs("part") == []
    with started(tmp_path / "station", place) as (station, _):
        assert [run["passed"] for run in station.golden.runs("part")] == [True]
        assert station.golden.runs("part")[0]["actor"] == "station"
        file = next((tmp_path / "station" / "golden").iterdir())
        file.write_bytes(file.read_bytes() + b"x")
    with started(tmp_path / "station", place, hold_on_golden_failure=True) as (station, _):
        assert "its file was changed since it was added" in station.holds["part"]


def test_a_check_from_time_to_time(place, tmp_path):
    with started(tmp_path / "station", place, golden_every=0.05) as (station, _):
        with_pictures(station)
        for _ in range(2):
            count = len(station.golden.runs("part"))
            for _ in range(600):
                if len(station.golden.runs("part")) > count:
                    break
                station.inspect(good_picture(1))
            assert len(station.golden.runs("part")) > count


def test_what_is_judged_otherwise_cannot_be_golden(station):
    with pytest.raises(ConflictError, match="Expected is good, and model part says defect"):
        station.golden.add("part", defect_picture(0), expected="good", name="a", actor=ANNA)
    with pytest.raises(SettingError, match="must be defect or good"):
        station.golden.add("part", defect_picture(0), expected="fine", name="a", actor=ANNA)
    with pytest.raises(NotFoundError):
        station.golden.add("other", defect_picture(0), expected="defect", name="a", actor=ANNA)
    with pytest.raises(PictureError):
        station.golden.add("part", b"no picture", expected="good", name="a", actor=ANNA)
    with_pictures(station)
    with pytest.raises(ConflictError, match="is golden already"):
        station.golden.add("part", good_picture(0), expected="good", name="again", actor=ANNA)
    assert len(list((station.settings.folder / "golden").iterdir())) == 2


def test_a_picture_that_cannot_be_written_is_not_golden_and_can_be_added_later(station):
    folder = station.settings.folder / "golden"
    folder.rmdir()
    folder.write_bytes(b"a file stands where the folder was")
    with pytest.raises(HistoryError, match=r"Cannot write .* is a file"):
        station.golden.add("part", good_picture(0), expected="good", name="good.png", actor=ANNA)
    assert station.golden.all("part") == []
    folder.unlink()
    station.golden.add("part", good_picture(0), expected="good", name="good.png", actor=ANNA)


def test_a_judged_inspection_becomes_golden(place, tmp_path):
    with started(tmp_path / "station", place, keep_good=1.0) as (station, _):
        inspection = station.inspect(good_picture(0), Caption(name="from the line"))
        with pytest.raises(ConflictError, match="must be judged by a person"):
            station.golden.add_inspected(inspection.key, ANNA)
        station.history.judge(inspection.key, "fine", ANNA)
        added = station.golden.add_inspected(inspection.key, ANNA)
        assert (added["expected"], added["name"]) == ("good", "from the line")
        with pytest.raises(NotFoundError, match="There is no inspection"):
            station.golden.add_inspected("0" * 32, ANNA)


def test_removing_one_leaves_no_file_and_a_row_in_the_trail(station):
    one, two = with_pictures(station)
    station.golden.remove(one["id"], ANNA)
    assert station.golden.all("part") == [two]
    assert [file.stem for file in (station.settings.folder / "golden").iterdir()] == [two["id"]]
    assert station.trail.rows(limit=1)[0].action == "golden remove"
    with pytest.raises(NotFoundError):
        station.golden.remove(one["id"], ANNA)
    with pytest.raises(NotFoundError):
        station.golden.picture(one["id"])


def test_a_check_that_cannot_be_done_is_said_and_the_next_one_is_done(station, monkeypatch, caplog):
    with_pictures(station)

    def broken(picture, caption):
        raise RuntimeError("out of order")

    monkeypatch.setattr(station, "submit", broken)
    station.golden.check_soon("part")
    wait_until(
        lambda: "The golden check of model part could not be done: unexpected RuntimeError: out of order" in caplog.text
    )
    monkeypatch.undo()
    assert station.golden.runs("part") == []
    station.golden.check_soon("part")
    wait_until(lambda: station.golden.runs("part"))


def test_a_model_without_golden_pictures_cannot_be_checked(station):
    with pytest.raises(ConflictError, match="has no golden pictures"):
        station.golden.check("part")
    with pytest.raises(NotFoundError):
        station.golden.check("other")


def test_golden_pictures_are_no_production(station):
    with_pictures(station)
    station.golden.check("part")
    assert station.history.scores("part") == []
    assert station.recent.latest("part") is None
    assert station.history.count(Filter(source="golden")) == 4
    assert "golden" in NOT_PRODUCTION


def test_golden_check_on_bottle(shared, tmp_path):
    """Real bottles: what is recorded comes out again after a restart, and a taught threshold is noticed."""
    from totalrecall import PatchCore

    bottle = shared / "data" / "mvtec_ad" / "bottle"
    train = sorted((bottle / "train" / "good").iterdir())[:24]
    place = PatchCore(size=128, coreset=0.05, false_alarm_rate=0.1).fit(train).save(tmp_path / "bottle.trecall")
    broken = sorted((bottle / "test" / "broken_large").iterdir())[:3]
    with started(tmp_path / "station", place) as (station, _):
        for path in broken:
            station.golden.add("bottle", path.read_bytes(), expected="defect", name=path.name, actor=ANNA)
        added = 0
        for path in sorted((bottle / "test" / "good").iterdir())[:6]:
            if station.inspect(path.read_bytes()).verdict == "good":
                station.golden.add("bottle", path.read_bytes(), expected="good", name=path.name, actor=ANNA)
                added += 1
        assert added >= 3
    with started(tmp_path / "station", place) as (station, _):
        (run,) = station.golden.runs("bottle")
        assert run["passed"], run["words"]
        assert len(run["pictures"]) == 3 + added
    detector = load_detector(place)
    detector.update(threshold=1e6)
    detector.save(place)
    with started(tmp_path / "station", place, hold_on_golden_failure=True) as (station, _):
        assert "failed for 3 of" in station.holds["bottle"]


def test_a_picture_that_waits_when_the_check_fails_gets_no_verdict(place, tmp_path):
    entered, go = threading.Event(), threading.Event()

    def busy(_):
        entered.set()
        assert go.wait(60)

    with started(tmp_path / "station", place, read_serial=busy) as (station, _):
        first = station.submit(good_picture(0))
        assert entered.wait(60)
        waits = station.submit(good_picture(1))  # for the one before it to be told
        station.holds["part"] = "its check failed"
        go.set()
        assert first.result(60).verdict == "good"
        with pytest.raises(ConflictError, match="Model part is held: its check failed"):
            waits.result(60)
        assert station.history.count() == 1


def test_a_model_is_held_even_if_the_failure_cannot_be_written_down(station, monkeypatch):
    with_pictures(station)
    alter(station, score=123.0)
    write = station.database.write

    def refuse(function):
        if "_concluded" in function.__qualname__:
            raise HistoryError("the disk is full")
        return write(function)

    monkeypatch.setattr(station.database, "write", refuse)
    with pytest.raises(HistoryError):
        station.golden.check("part", ANNA)
    with pytest.raises(ConflictError, match="is held"):
        station.inspect(good_picture(0))


def test_a_replaced_model_is_checked_by_itself(station, place):
    with_pictures(station)
    detector = load_detector(place)
    detector.update(threshold=1e6)  # finds nothing any more
    detector.save(place)
    station.shelf.look()
    end = time.monotonic() + 60
    while "part" not in station.holds and time.monotonic() < end:
        time.sleep(0.02)
    with pytest.raises(ConflictError, match=r"bad\.png"):
        station.inspect(defect_picture(0))
