"""The gauge study: shares with intervals, Cohen's kappa and repeatability, against independent computations."""

import csv
import json
import math
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from tests.stations import started
from tests.striped import write_parts
from totalrecall import load_detector
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.station.judging.caption import Caption, Upload
from totalrecall.station.quality.agreement import kappa_of, kappa_of_table, share_of
from totalrecall.station.quality.labelled import parse_table, read_parts
from totalrecall.station.quality.study import JudgedPart, run_study, study_of
from totalrecall.station.quality.study_page import study_html, write_study
from totalrecall.station.store.records import Actor

ANNA = Actor("anna", "engineer")


@pytest.fixture(scope="module")
def gauge_parts(tmp_path_factory):
    """12 good and 9 damaged parts, three pictures each: the same part with the noise of another exposure."""
    return write_parts(tmp_path_factory.mktemp("gauge"), good=12, dented=9, runs=3, noise=1)


# ---------------------------------------------------------------------- figures


def test_intervals_of_shares_are_those_of_clopper_and_pearson():
    # Clopper and Pearson's intervals as tables give them: 0 of 20, 1 of 10, 5 of 10, all of 30
    for count, total, low, high in (
        (0, 20, 0.0, 0.1684),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (30, 30, 0.8843, 1.0),
    ):
        share = share_of(count, total)
        assert (share.low, share.high) == pytest.approx((low, high), abs=6e-5)
    assert math.isnan(share_of(0, 0).value)


@settings(max_examples=30)
@given(st.integers(1, 60).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_each_end_of_an_interval_leaves_a_tail_of_two_and_a_half_percent(case):
    count, total = case
    share = share_of(count, total)
    if count:
        at_least = sum(
            math.comb(total, k) * share.low**k * (1 - share.low) ** (total - k) for k in range(count, total + 1)
        )
        assert at_least == pytest.approx(0.025, abs=1e-6)
    if count < total:
        at_most = sum(math.comb(total, k) * share.high**k * (1 - share.high) ** (total - k) for k in range(count + 1))
        assert at_most == pytest.approx(0.025, abs=1e-6)
    assert share.low <= share.value <= share.high


def test_kappa_of_the_published_example():
    # Fleiss, Statistical Methods for Rates and Proportions (2nd edition 1981), table 13.1: kappa 0.68, s.e. 0.087
    kappa = kappa_of_table(np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]]))
    assert kappa.value == pytest.approx(0.676, abs=5e-4)
    assert kappa.error == pytest.approx(0.0877, abs=1e-4)
    assert (kappa.low, kappa.high) == pytest.approx((0.505, 0.848), abs=1e-3)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("gdw"), st.sampled_from("gdw")), min_size=2, max_size=60))
def test_kappa_is_that_of_scikit_learn(pairs):
    one, other = zip(*pairs, strict=True)
    kappa = kappa_of(one, other)
    if len({*one, *other}) == 1:
        assert math.isnan(kappa.value)
    else:
        assert kappa.value == pytest.approx(cohen_kappa_score(one, other), abs=1e-9)
        assert kappa.low <= kappa.value + 1e-12
        assert kappa.value <= kappa.high + 1e-12


@settings(max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=4, max_size=4))
def test_the_standard_error_is_that_of_the_delta_method(counts):
    table = np.array(counts).reshape(2, 2)
    shares = table / table.sum()

    def kappa(p):
        expected = p.sum(1) @ p.sum(0)
        return (np.trace(p) - expected) / (1 - expected)

    slope = np.zeros((2, 2))
    for at in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[at] = 1e-6
        slope[at] = (kappa(shares + step) - kappa(shares - step)) / 2e-6
    variance = ((shares * slope**2).sum() - (shares * slope).sum() ** 2) / table.sum()
    assert kappa_of_table(table).error == pytest.approx(math.sqrt(max(variance, 0)), rel=1e-4, abs=1e-7)


def test_full_agreement_is_not_certain():
    kappa = kappa_of(["good"] * 10 + ["defect"] * 10, ["good"] * 10 + ["defect"] * 10)
    assert (kappa.value, kappa.error, kappa.high) == (1.0, 0.0, 1.0)
    assert kappa.low == pytest.approx((0.83157 - 0.5) / 0.5, abs=1e-4)  # 20 of 20 agree: at least 83.16 %


def example():
    """Four parts in three runs: a good one that is rejected once, a defect that is missed twice."""
    return [
        JudgedPart("a", "good", ("good", "good", "good"), (1.0, 1.2, 1.1)),
        JudgedPart("b", "good", ("good", "defect", "good"), (1.9, 2.1, 1.7)),
        JudgedPart("c", "defect", ("defect", "defect", "defect"), (5.0, 5.3, 5.6)),
        JudgedPart("d", "defect", ("good", "good", "defect"), (1.8, 1.9, 2.3)),
    ]


def test_a_study_counts_what_can_be_counted_by_hand():
    study = study_of(example(), 2.0)
    assert (study.steady.count, study.effectiveness.count) == (2, 2)
    misses, alarms = study.decisions("defect"), study.decisions("good")
    assert (misses.count, misses.total, alarms.count, alarms.total) == (2, 6, 1, 6)
    assert (study.parts_wrong("defect").count, study.parts_wrong("good").count) == (1, 1)
    # sums of squares 0.02, 0.08, 0.18, 0.14 over 8 degrees of freedom
    assert study.repeatability == pytest.approx(math.sqrt(0.42 / 8))
    assert study.spread_of_good == pytest.approx(abs(1.1 - 1.9) / math.sqrt(2))
    assert study.widest.name == "c"
    assert [kappa.value for kappa in study.kappa_of_truth()] == pytest.approx([0.5, 0.0, 1.0])
    assert [(one, other) for one, other, _ in study.kappa_of_runs()] == [(1, 2), (1, 3), (2, 3)]
    assert [rating.word for rating in study.ratings()] == ["not acceptable"] * 3
    assert any("4 parts; a study should have 20 to 80" in note for note in study.notes)


def test_the_words_follow_the_limits():
    parts = [JudgedPart(f"g{at}", "good", ("good",) * 2, (1.0, 1.0)) for at in range(30)]
    parts += [JudgedPart(f"d{at}", "defect", ("defect",) * 2, (9.0, 9.0)) for at in range(29)]
    missed = JudgedPart("d", "defect", ("defect", "good"), (2.1, 1.9))
    words = {rating.name: rating.word for rating in study_of([*parts, missed], 2.0).ratings()}
    assert words == {"effectiveness": "acceptable", "miss rate": "acceptable", "false alarm rate": "acceptable"}
    twice = [missed, JudgedPart("e", "defect", ("good", "good"), (1.9, 1.9))]
    words = {rating.name: rating.word for rating in study_of([*parts, *twice], 2.0).ratings()}
    assert words["miss rate"] == "marginal"  # 3 of 62


def test_a_study_of_one_kind_is_refused():
    with pytest.raises(DataError, match="there are no defective ones"):
        study_of(example()[:2], 2.0)
    with pytest.raises(DataError, match="there are no good ones"):
        study_of(example()[2:], 2.0)
    uneven = [*example(), JudgedPart("e", "good", ("good",), (1.0,))]
    with pytest.raises(DataError, match="as many runs, got 1 and 3"):
        study_of(uneven, 2.0)


# ---------------------------------------------------------------------- pictures


def test_a_folder_and_a_table_give_the_same_study(fitted, gauge_parts, tmp_path):
    detector = load_detector(fitted)
    parts = read_parts(gauge_parts)
    assert (len(parts), parts[0].name, parts[-1].name) == (21, "good/00", "dent/08")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["part", "path", "truth"])
        lines.writerows([part.name, picture, part.truth] for part in parts for picture in part.pictures)
    table = read_parts(tmp_path / "table.csv")
    assert [(part.name, part.truth, list(map(str, part.pictures))) for part in table] == [
        (part.name, part.truth, list(map(str, part.pictures))) for part in parts
    ]
    study = run_study(detector, parts)
    assert study.runs == 3
    assert run_study(detector, table).to_json() == study.to_json()
    for part, judged in zip(parts, study.parts, strict=True):
        assert judged.scores == tuple(detector.predict(picture).score for picture in part.pictures)
    assert study.decisions("defect").count == 0
    assert run_study(detector, parts, runs=2).runs == 2
    json.dumps(study.to_json(), allow_nan=False)


def test_too_few_pictures_and_the_same_picture_twice_are_said(fitted, gauge_parts, tmp_path):
    detector = load_detector(fitted)
    with pytest.raises(DataError, match="has 3 pictures, and 4 runs were asked for"):
        run_study(detector, read_parts(gauge_parts), runs=4)
    with pytest.raises(SettingError, match="runs must be at least 1"):
        run_study(detector, read_parts(gauge_parts), runs=0)
    copied = tmp_path / "copied"
    for truth in ("good", "dent"):
        for part in sorted((gauge_parts / truth).iterdir())[:2]:
            (copied / truth / part.name).mkdir(parents=True)
            for run in range(2):
                shutil.copy(part / "0.png", copied / truth / part.name / f"{run}.png")
    study = run_study(detector, read_parts(copied))
    assert study.repeatability == pytest.approx(0, abs=1e-6)
    assert any("4 of 4 parts have the same picture in several runs" in note for note in study.notes)


def test_a_picture_that_cannot_be_read_ends_the_study(fitted, gauge_parts, tmp_path):
    shutil.copytree(gauge_parts, tmp_path / "gauge")
    (tmp_path / "gauge" / "good" / "00" / "1.png").write_bytes(b"nothing")
    with pytest.raises(PictureError, match=r"1\.png"):
        run_study(load_detector(fitted), read_parts(tmp_path / "gauge"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("part,path\na,b", "must have the columns part,path,truth"),
        ("part,path,truth", "names no pictures"),
        ("part,path,truth\na,b", "line 2: it has 2 cells"),
        ("part,path,truth\na,b,bad", "line 2: it must name a part, a path, and good or defect"),
    ],
)
def test_a_table_that_is_none_is_refused(text, fault):
    with pytest.raises(DataError, match=fault):
        parse_table(text)


def test_a_part_cannot_be_both(tmp_path):
    (tmp_path / "t.csv").write_text("part,path,truth\na,1.png,good\na,2.png,defect\n")
    with pytest.raises(DataError, match="part 'a' is good in one line and a defect in another"):
        read_parts(tmp_path / "t.csv")
    with pytest.raises(DataError, match="Cannot read"):
        read_parts(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="holds no parts"):
        read_parts(tmp_path)


# ---------------------------------------------------------------------- page


def test_the_page_shows_figures_and_every_part(tmp_path):
    hostile = JudgedPart("<script>x</script>", "good", ("good",) * 3, (1.0, 1.0, 1.0))
    study = study_of([*example(), hostile], 2.0)
    text = write_study(tmp_path / "study.html", study, facts={"model": "part"}).read_text()
    assert "2 of 6, 33.3 %" in text
    assert text.count("<circle") == 9
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<script" not in text
    assert "threshold 2" in text
    assert study_html(study, facts={"model": "part"}) == text


def test_scores_below_zero_are_drawn_on_a_plain_axis():
    parts = [JudgedPart("a", "good", ("good",), (-1.0,)), JudgedPart("b", "defect", ("defect",), (3.0,))]
    text = study_html(study_of(parts, 1.0), facts={})
    assert "nan" not in text.split("<svg")[1].split("</svg>")[0]


# ---------------------------------------------------------------------- at the station


def test_a_study_at_the_station_judges_as_the_line_does(fitted, gauge_parts, tmp_path):
    parts = read_parts(gauge_parts)
    sent = [
        Upload(path.read_bytes(), Caption(name=f"{part.name}/{path.name}")) for part in parts for path in part.pictures
    ]
    lines = [f"{part.name},{part.name}/{path.name},{part.truth}" for part in parts for path in part.pictures]
    with started(tmp_path / "station", fitted) as (station, _):
        with pytest.raises(DataError, match=r"names the picture 'good/00/0\.png', which was not sent"):
            station.studies.begin("part", "\n".join(["part,path,truth", *lines]), sent[1:], ANNA)
        key = station.studies.begin("part", "\n".join(["part,path,truth", *lines]), sent, ANNA)
        station.studies.wait(key, 300)
        facts = station.studies.facts(key)
        assert (facts["state"], facts["done"], facts["total"]) == ("done", 63, 63)
        expected = run_study(load_detector(fitted), parts).to_json()
        for name in ("misses", "false_alarms", "steady", "kappa_of_truth", "threshold"):
            assert facts["result"][name] == expected[name]
        assert "Gauge study" in station.studies.page(key)
        assert station.history.scores("part") == []  # it was no production


def test_study_of_bottle(shared, tmp_path):
    """Real bottles, each photographed once and exposed anew three times: no verdict may be lost on the way."""
    from totalrecall import PatchCore

    bottle = shared / "data" / "mvtec_ad" / "bottle"
    train = sorted((bottle / "train" / "good").iterdir())[:40]
    detector = PatchCore(size=128, coreset=0.05, false_alarm_rate=0.05).fit(train)
    root = tmp_path / "gauge"
    chosen = [("good", path) for path in sorted((bottle / "test" / "good").iterdir())[:10]]
    chosen += [("broken", path) for path in sorted((bottle / "test" / "broken_large").iterdir())[:10]]
    for truth, path in chosen:
        image = cv2.imread(str(path)).astype(np.float32)
        (root / truth / path.stem).mkdir(parents=True)
        for run, gain in enumerate((0.99, 1.0, 1.01)):
            cv2.imwrite(str(root / truth / path.stem / f"{run}.png"), np.clip(image * gain, 0, 255).astype(np.uint8))
    study = run_study(detector, read_parts(root))
    assert (len(study.parts), study.runs) == (20, 3)
    assert study.decisions("defect").count <= 3
    assert 0 < study.repeatability < study.spread_of_good
    for run in range(3):
        verdicts, truth = [part.verdicts[run] for part in study.parts], [part.truth for part in study.parts]
        assert study.kappa_of_truth()[run].value == pytest.approx(cohen_kappa_score(verdicts, truth))
