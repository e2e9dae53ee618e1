"""Recipes choose model, rate, camera and outputs by product; a faulty file changes nothing; wrong products show."""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stations import started
from tests.striped import defect_picture, fit_striped, good_picture, other_product
from totalrecall import load_detector
from totalrecall.errors import ConflictError, HistoryError, NotFoundError, SettingError
from totalrecall.station.judging.caption import Caption
from totalrecall.station.judging.wrong_product import MARGIN, limit_of, quiet_level
from totalrecall.station.quality.recipe_file import Recipe, parse_recipes
from totalrecall.station.station import Link
from totalrecall.station.store.records import Actor

ANNA = Actor("anna", "operator")
TWO = """
[product."Ring 5 mm"]
model = "part"
false_alarm_rate = 0.3

[product.plain]
model = "other"
camera = 0
outputs = ["line"]
"""


class Line(Link):
    """An output that remembers what it was told."""

    def __init__(self, name):
        self.name, self.seen = name, []

    def body(self, inspection):
        return {"id": inspection.key}

    def told(self, inspection):
        self.seen.append(inspection.verdict)

    def start(self, station):
        pass

    def close(self):
        pass


@pytest.fixture
def places(fitted, tmp_path):
    return [Path(shutil.copy(fitted, tmp_path / f"{name}.trecall")) for name in ("part", "other")]


def write(folder, text):
    folder.mkdir(exist_ok=True)
    path = folder / "recipes.toml"
    path.write_text(text, encoding="utf-8")
    at = path.stat().st_mtime_ns + 10_000_000 * len(text)  # two writes within a tick of the clock
    os.utime(path, ns=(at, at))
    return path


def test_a_file_is_read_as_recipes():
    recipes = parse_recipes(TWO, ["part", "other"], ["line"])
    assert recipes == {
        "Ring 5 mm": Recipe("Ring 5 mm", "part", 0.3),
        "plain": Recipe("plain", "other", camera="0", outputs=("line",)),
    }
    assert parse_recipes("", ["part"]) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[product.a]\nmodel = ", "recipes.toml is no TOML: "),
        ("[recipe.a]\nmodel = 'part'", "holds tables [product.\"NAME\"] alone, got 'recipe'"),
        ("product = 3", "product must be tables"),
        (
            "[product.a]\nmodel = 'part'\nspeed = 3",
            "keys are model, false_alarm_rate, camera, camera_interval, outputs, got 'speed'",
        ),
        ("[product.a]\nfalse_alarm_rate = 0.1", "model must be one of other, part, got nothing"),
        ("[product.a]\nmodel = 'parts'", "model must be one of other, part, got 'parts'"),
        (
            "[product.a]\nmodel = 'part'\nfalse_alarm_rate = 1.0",
            "over 0 and under 1, got 1.0. For 1 percent write 0.01",
        ),
        ("[product.a]\nmodel = 'part'\nfalse_alarm_rate = nan", "over 0 and under 1, got nan"),
        ("[product.a]\nmodel = 'part'\nfalse_alarm_rate = true", "over 0 and under 1, got True"),
        ("[product.a]\nmodel = 'part'\nfalse_alarm_rate = '1 %'", "over 0 and under 1, got '1 %'"),
        ("[product.a]\nmodel = 'part'\ncamera = 1.5", "camera must be a number, an address or a video file, got 1.5"),
        ("[product.a]\nmodel = 'part'\noutputs = 'line'", "outputs must be a list of names"),
        ("[product.a]\nmodel = 'part'\noutputs = ['lane']", "outputs are line, got 'lane'"),
        ('[product."a\\u001b"]\nmodel = "part"', "a product's name must have 1 to 200 printable letters"),
    ],
)
def test_each_fault_is_one_clear_line(text, fault):
    with pytest.raises(SettingError) as caught:
        parse_recipes(text, ["part", "other"], ["line"])
    assert fault in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_recipe_judges_at_its_rate_and_the_file_stays_as_it_is(places, tmp_path):
    write(tmp_path / "station", TWO)
    before = places[0].read_bytes()
    line = Line("line")
    with started(tmp_path / "station", *places, links=[line]) as (station, _):
        own = station.inspect(good_picture(0), Caption(model="part"))
        assert own.product is None
        station.recipes.select("Ring 5 mm", ANNA)
        expected = load_detector(places[0]).judging(false_alarm_rate=0.3)
        for asked in ({"model": "part"}, {}):  # whoever names no model gets the product's
            inspection = station.inspect(good_picture(0), Caption(**asked))
            assert (inspection.model, inspection.product) == ("part", "Ring 5 mm")
            assert inspection.threshold == expected.threshold_ < own.threshold
            assert inspection.score == pytest.approx(own.score)
            assert inspection.model_sha256 == own.model_sha256
        assert station.history.get(inspection.key).product == "Ring 5 mm"
        assert station.inspect(good_picture(0), Caption(model="other")).product is None
        station.recipes.select(None, ANNA)
        assert station.inspect(good_picture(0), Caption(model="part")).threshold == own.threshold
    assert places[0].read_bytes() == before


def test_a_client_may_name_the_product_of_a_picture(places, tmp_path):
    write(tmp_path / "station", TWO)
    with started(tmp_path / "station", *places, links=[Line("line")]) as (station, _):
        assert station.inspect(good_picture(0), Caption(product="plain")).model == "other"
        with pytest.raises(NotFoundError, match="product must be one of Ring 5 mm, plain, got 'none'"):
            station.submit(good_picture(0), Caption(product="none"))
        with pytest.raises(SettingError, match="is judged by model other, got model 'part'"):
            station.submit(good_picture(0), Caption(product="plain", model="part"))


def test_the_choice_survives_a_restart_and_is_in_the_trail(places, tmp_path):
    write(tmp_path / "station", TWO)
    line = Line("line")
    with started(tmp_path / "station", *places, links=[line]) as (station, _):
        heard = []
        station.recipes.on_change(heard.append)
        station.recipes.select("plain", ANNA)
        assert [recipe.product for recipe in heard] == ["plain"]
        row = station.trail.rows(limit=1)[0]
        assert (row.actor, row.action, row.subject) == ("anna", "recipe", "plain")
        with pytest.raises(NotFoundError):
            station.recipes.select("nothing", ANNA)
    with started(tmp_path / "station", *places, links=[line]) as (station, _):
        assert station.recipes.current.product == "plain"
        assert station.recipes.facts()["product"] == "plain"
    write(tmp_path / "station", '[product.a]\nmodel = "part"\n')
    with started(tmp_path / "station", *places, links=[line]) as (station, _):
        assert station.recipes.current is None
        assert "has it no longer" in station.recipes.facts()["fault"]
        with pytest.raises(ConflictError, match="Nothing is judged until a product is chosen"):
            station.inspect(good_picture(0), Caption(model="part"))
        write(tmp_path / "station", TWO)
        station.recipes.look()
        assert station.recipes.current.product == "plain"
        assert station.inspect(good_picture(0)).product == "plain"
    write(tmp_path / "station", '[product.a]\nmodel = "part"\n')
    with started(tmp_path / "station", *places, links=[line]) as (station, _):
        station.recipes.select(None, ANNA)
        assert station.inspect(good_picture(0), Caption(model="part")).product is None


def test_without_any_product_a_choice_is_refused_in_a_sentence(places, tmp_path):
    said = "recipes.toml has no product yet, got 'a'. Write its recipe first."
    with started(tmp_path / "station", places[0]) as (station, _), pytest.raises(NotFoundError, match=f"^{said}$"):
        station.recipes.select("a", ANNA)


def test_a_changed_file_is_read_and_a_faulty_one_changes_nothing(places, tmp_path):
    folder = tmp_path / "station"
    write(folder, '[product.a]\nmodel = "part"\nfalse_alarm_rate = 0.3\n')
    with started(folder, *places) as (station, _):
        station.recipes.select("a", ANNA)
        first = station.inspect(good_picture(0)).threshold
        write(folder, '[product.a]\nmodel = "part"\nfalse_alarm_rate = 0.1\n')
        station.recipes.look()
        assert station.inspect(good_picture(0)).threshold > first
        assert station.recipes.fault is None
        write(folder, '[product.a]\nmodel = "nobody"\n')
        station.recipes.look()
        assert "model must be one of other, part, got 'nobody'" in station.recipes.fault
        assert station.recipes.current.model == "part"
        write(folder, '[product.b]\nmodel = "part"\n')
        station.recipes.look()
        assert "is being made" in station.recipes.fault
        assert station.inspect(good_picture(0)).product == "a"


def read(station):
    """The hashes of the recipes that were read, by the trail."""
    rows = reversed(station.trail.rows(limit=100))
    return [row.facts()["sha256"] for row in rows if row.action == "recipes read"]


def test_another_rate_is_in_force_once_its_row_is_committed(places, tmp_path, monkeypatch):
    folder = tmp_path / "station"
    write(folder, '[product.a]\nmodel = "part"\nfalse_alarm_rate = 0.3\n')
    with started(folder, *places) as (station, _):
        station.recipes.select("a", ANNA)
        first = read(station)

        def lost(_):
            raise HistoryError("The database does not answer.")

        write(folder, '[product.a]\nmodel = "part"\nfalse_alarm_rate = 0.1\n')
        with monkeypatch.context() as patched:
            patched.setattr(station.database, "write", lost)
            station.recipes.look()
        assert station.recipes.current.false_alarm_rate == 0.3
        assert station.recipes.fault == "The database does not answer."
        station.recipes.look()
        assert (station.recipes.current.false_alarm_rate, station.recipes.fault) == (0.1, None)
        assert len(read(station)) == len(first) + 1


def test_recipes_that_were_changed_while_the_station_was_down_are_told_at_the_start(places, tmp_path):
    folder = tmp_path / "station"
    with started(folder, *places) as (station, _):
        assert read(station) == []
    write(folder, '[product.a]\nmodel = "part"\n')
    for _ in range(2):
        with started(folder, *places) as (station, _):
            assert len(read(station)) == 1
    write(folder, '[product.b]\nmodel = "part"\n')
    with started(folder, *places) as (station, _):
        assert len(set(read(station))) == 2
    (folder / "recipes.toml").unlink()
    with started(folder, *places) as (station, _):
        assert read(station)[2:] == [""]


def test_a_station_does_not_start_on_faulty_recipes(places, tmp_path):
    write(tmp_path / "station", "[product.a]\nmodel = 'nobody'")
    with pytest.raises(SettingError, match="model must be one of"), started(tmp_path / "station", *places):
        pass


def test_a_recipe_tells_its_outputs_alone(places, tmp_path):
    write(tmp_path / "station", TWO)
    line, other = Line("line"), Line("other")
    with started(tmp_path / "station", *places, links=[line, other]) as (station, _):
        station.inspect(good_picture(0), Caption(product="plain"))
        assert (line.seen, other.seen) == (["good"], [])
        station.inspect(defect_picture(0), Caption(product="Ring 5 mm"))
        assert (line.seen, other.seen) == (["good", "defect"], ["defect"])
        station.inspect(good_picture(0), Caption(model="part", source="golden"))
        assert len(line.seen) == 2  # what the station shows to itself stops no line


def test_a_model_that_was_replaced_is_judged_at_the_rate_too(places, tmp_path):
    write(tmp_path / "station", '[product.a]\nmodel = "part"\nfalse_alarm_rate = 0.3\n')
    with started(tmp_path / "station", *places) as (station, _):
        station.recipes.select("a", ANNA)
        before = station.inspect(good_picture(0))
        fit_striped(places[0].parent, pictures=20)
        station.shelf.reload("part")
        after = station.inspect(good_picture(0))
        assert after.model_sha256 != before.model_sha256
        assert after.threshold == load_detector(places[0]).judging(false_alarm_rate=0.3).threshold_


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return fit_striped(tmp_path_factory.mktemp("large"), size=256)


def test_a_product_is_not_chosen_where_the_trail_cannot_tell_of_it(places, tmp_path, monkeypatch):
    write(tmp_path / "station", '[product.plain]\nmodel = "part"\n')

    def refuse(*_):
        raise HistoryError("the disk is full")

    with started(tmp_path / "station", *places) as (station, _):
        with monkeypatch.context() as patched:
            patched.setattr(station.trail, "append_in", refuse)
            with pytest.raises(HistoryError):
                station.recipes.select("plain", ANNA)
        assert station.recipes.current is None
        assert station.history.value("product") is None  # a restart chooses none either
        station.recipes.select("plain", ANNA)
        row = station.trail.rows(limit=1)[0]
        assert (row.actor, row.action, row.subject, station.history.value("product")) == (
            "anna",
            "recipe",
            "plain",
            "plain",
        )


def test_another_product_gets_no_verdict(large, tmp_path):
    line = Line("line")
    with started(tmp_path / "station", large, links=[line], wrong_product=True) as (station, _):
        strange = station.inspect(other_product(0))
        assert (strange.verdict, strange.is_anomalous, strange.regions) == ("wrong product", None, [])
        assert strange.score > strange.threshold
        assert station.history.get(strange.key).verdict == "wrong product"
        assert station.inspect(defect_picture(0)).verdict == "defect"
        assert station.inspect(good_picture(0)).verdict == "good"
        assert line.seen == ["wrong product", "defect", "good"]
    with started(tmp_path / "plain", large) as (station, _):  # it is an option
        assert station.inspect(other_product(0)).verdict == "defect"


def test_the_quiet_level_is_that_of_what_is_inspected(large):
    detector = load_detector(large)
    result = detector.predict(defect_picture(0))
    assert quiet_level(result) == pytest.approx(np.quantile(result.anomaly_map, 0.1), rel=0.02)
    assert limit_of(detector) == MARGIN * np.quantile(detector.drift_.values[:, 6], 0.95)
    half = np.zeros((70, 90), bool)
    half[:, 45:] = True
    recipe = replace(result.recipe, roi=half)
    level = quiet_level(replace(result, recipe=recipe))
    assert level == pytest.approx(np.quantile(result.anomaly_map[:, 45:], 0.1), rel=0.02)


def test_a_model_that_cannot_tell_calls_nothing_another_product(fitted, tmp_path):
    detector = load_detector(fitted)  # of 64 pixels
    assert math.isnan(limit_of(detector))
    assert math.isnan(limit_of(object()))
    with started(tmp_path / "station", fitted, wrong_product=True) as (station, _):
        assert station.inspect(other_product(0)).verdict == "defect"
