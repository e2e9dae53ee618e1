"""benchmark_tables: means, spreads, published values and differences, checked by hand."""

import csv
from dataclasses import replace

import pytest

from totalrecall.benchmark.published import PublishedValue
from totalrecall.benchmark.tables import (
    METRICS,
    choose_reference,
    csv_text,
    figures,
    markdown,
    metric_tables,
    resource_table,
    shots_table,
    summary_table,
    verdict_table,
)


def line(method="patchcore", category="bottle", seed=1, value=0.9, shots=None, backbone="resnet18"):
    return {
        "setup": {
            "method": method,
            "category": category,
            "seed": seed,
            "shots": shots,
            "backbone": backbone,
            "architecture": backbone,
        },
        "metrics": {**dict.fromkeys(METRICS), "image_auroc": value},
        "seconds": {"features": 1.0, "evaluate": 2.0},
        "latency_ms": 5.0,
        "peak_memory": 300e6,
        "peak_of": "cell",
        "model": {"vectors": 10, "dimensions": 384, "bytes": 15360, "chunks": 1},
    }


def published(category, value, backbone="wide_resnet50_2", protocol="paper-10", metric="image_auroc", **changes):
    row = PublishedValue("mvtec", category, "patchcore", backbone, protocol, metric, value, "the paper", "printed")
    return replace(row, **changes)


def found(lines, reference=(), whole=False):
    every = figures(lines, reference, whole=whole)
    return {(one.group, one.category): one for one in every if one.metric == "image_auroc"}


TWO_BY_TWO = [
    line(category=category, seed=seed, value=value)
    for category, seed, value in [("bottle", 1, 0.9), ("bottle", 2, 1.0), ("cable", 1, 0.5), ("cable", 2, 0.7)]
]


def test_means_and_spreads_are_those_over_seeds():
    values = found(TWO_BY_TWO)
    bottle, average = values[("patchcore", None), "bottle"], values[("patchcore", None), "average"]
    assert (bottle.mean, bottle.spread, bottle.seeds) == (pytest.approx(95), pytest.approx(50**0.5), 2)
    # seeds' averages are 70 and 85
    assert (average.mean, average.spread) == (pytest.approx(77.5), pytest.approx(112.5**0.5))


def test_what_could_not_be_measured_stays_out_of_the_mean():
    values = found([line(), line(category="cable", value=None)])
    assert values[("patchcore", None), "average"].mean == pytest.approx(90)
    assert values[("patchcore", None), "cable"].seeds == 0


def test_the_difference_is_ours_less_the_published():
    reference = [published("bottle", 100.0), published("cable", 60.5), published("mean", 99.1)]
    lines = [line(), line(category="cable", value=0.6)]
    values = found(lines, reference)
    assert values[("patchcore", None), "bottle"].difference == pytest.approx(-10)
    assert values[("patchcore", None), "cable"].difference == pytest.approx(-0.5)
    assert values[("patchcore", None), "average"].published.value == 80.25  # of the categories that were run
    assert found(lines, reference, whole=True)[("patchcore", None), "average"].published.value == 99.1


def test_a_mean_alone_is_compared_with_the_whole_set_only():
    reference = [published("mean", 99.0)]
    assert choose_reference(reference, ("x", "x"), ["bottle"]) == {}
    assert choose_reference(reference, ("x", "x"), ["bottle"], whole=True) == {"average": reference[0]}


def test_an_average_of_which_a_category_is_not_published_is_not_compared():
    chosen = choose_reference([published("bottle", 99.0)], ("x", "x"), ["bottle", "cable"])
    assert set(chosen) == {"bottle"}


def test_of_one_backbone_the_first_protocol_is_taken():
    reference = [published("bottle", value, protocol=name) for name, value in [("paper-10", 1.0), ("official-10", 2.0)]]
    for first in ("paper-10", "official-10"):
        chosen = choose_reference(reference, ("x", "x"), ["bottle"], protocols=[first])
        assert chosen["bottle"].protocol == first


def test_the_official_pro_which_is_of_defective_pictures_alone_comes_last():
    reference = [published("bottle", 1.0, protocol=name, metric="pixel_aupro") for name in ("official-10", "anomalib")]
    assert (
        choose_reference(reference, ("x", "x"), ["bottle"], protocols=["official-10"])["bottle"].protocol == "anomalib"
    )


@pytest.mark.parametrize(
    ("ours", "chosen"),
    [
        (("resnet18", "resnet18"), "resnet18"),
        (("mine", "resnet34"), "resnet18"),
        (("compact", "distilled"), "resnet18"),
        (("wide_resnet50_2.racm_in1k", "wide_resnet50_2"), "wide_resnet50_2"),
        (("wide_resnet101_2", "wide_resnet101_2"), "wide_resnet50_2"),
    ],
)
def test_the_nearest_backbone_is_compared_with(ours, chosen):
    reference = [published("bottle", 1.0, backbone=name) for name in ("wide_resnet50_2", "resnet101", "resnet18")]
    assert choose_reference(reference, ours, ["bottle"])["bottle"].backbone == chosen


def test_other_methods_metrics_and_few_pictures_are_not_compared():
    reference = [published("bottle", 99.0, metric="pixel_auroc"), published("bottle", 99.0, method="padim")]
    assert found([line()], reference)[("patchcore", None), "bottle"].published is None
    reference = [published("bottle", 99.0), published("bottle", 70.0, shots=5)]
    assert found([line(shots=5)], reference)[("patchcore", 5), "bottle"].published.value == 70.0
    assert found([line(shots=6)], reference)[("patchcore", 6), "bottle"].published is None


def test_a_table_has_categories_down_and_methods_across():
    lines = [*TWO_BY_TWO, line("padim", value=None), line("padim", category="cable")]
    tables = metric_tables(figures(lines, [published("bottle", 100.0), published("cable", 60.0)]))
    assert [table.title for table in tables] == [f"{title}, percent" for title in METRICS.values()]
    assert tables[0].heads == ["category", "patchcore", "published (wide_resnet50_2, paper-10)", "difference", "padim"]
    assert tables[0].rows == [
        ["bottle", "95.00 ± 7.07", "100.0", "-5.0", "–"],
        ["cable", "60.00 ± 14.14", "60.0", "+0.0", "90.00"],
        ["average", "77.50 ± 10.61", "80.0", "-2.5", "90.00"],
    ]
    assert tables[0].note.startswith("Published: patchcore: PatchCore paper, coreset of 10 %")


def test_low_shot_has_a_row_for_each_number_of_pictures():
    lines = [line(value=0.9), line(shots=10, value=0.8), line(shots=5, value=0.7)]
    every = figures(lines)
    table = shots_table(every)
    assert [row[:2] for row in table.rows] == [["5", "70.00"], ["10", "80.00"], ["all", "90.00"]]
    assert metric_tables(every)[0].heads == ["category", "patchcore"]  # the most pictures alone
    assert [row[0] for row in summary_table(every).rows] == [
        "patchcore",
        "patchcore, 10 pictures",
        "patchcore, 5 pictures",
    ]
    assert shots_table(figures([line()])) is None


def test_low_shot_has_published_means_of_as_many_pictures():
    reference = [published("mean", 75.0, shots=5), published("mean", 99.0)]
    lines = [line(shots=5, value=0.7), line(value=0.9)]
    table = shots_table(figures(lines, reference, whole=True))
    assert table.heads[:4] == [
        "good pictures",
        "patchcore image AUROC",
        "published (wide_resnet50_2, paper-10)",
        "difference",
    ]
    assert [row[:4] for row in table.rows] == [["5", "70.00", "75.0", "-5.0"], ["all", "90.00", "99.0", "-9.0"]]


def test_what_it_took_is_a_mean_over_seeds():
    table = resource_table([line(), {**line(seed=2), "latency_ms": 7.0}])
    assert table.rows == [["patchcore", "bottle", "1.0", "–", "–", "2.0", "6.0", "300", "10 x 384", "0.0"]]
    assert "whole process" in resource_table([{**line(), "peak_of": "process"}]).note


def test_the_csv_holds_every_figure():
    rows = list(csv.DictReader(csv_text(figures(TWO_BY_TWO, [published("bottle", 100.0)])).splitlines()))
    assert len(rows) == len(METRICS) * 3
    assert rows[0] == {
        "method": "patchcore", "shots": "all", "category": "bottle", "metric": "image_auroc", "mean": "95",
        "spread": "7.07107", "seeds": "2", "published": "100", "difference": "-5",
        "published_backbone": "wide_resnet50_2", "published_protocol": "paper-10", "published_source": "the paper",
        "found": "", "defects": "", "false_alarms": "", "good": "",
    }  # fmt: skip
    assert rows[1]["published"] == rows[1]["difference"] == ""


def test_verdicts_are_summed_over_seeds_in_the_table_and_in_the_csv():
    counts = {"found": 3, "defects": 4, "false_alarms": 1, "good": 9}
    lines = [{**one, "verdicts": counts} for one in TWO_BY_TWO]
    found = figures(lines, [])
    rows = [row for row in csv.DictReader(csv_text(found, lines).splitlines()) if row["category"] == "bottle"]
    assert (rows[0]["found"], rows[0]["defects"], rows[0]["false_alarms"], rows[0]["good"]) == ("6", "8", "2", "18")
    table = verdict_table(lines)
    assert table is not None
    assert table.rows[0][1:] == ["bottle", "6 / 8", "2 / 18"]
    assert verdict_table(TWO_BY_TWO) is None  # lines of an older version have none
    unjudged = [{**one, "verdicts": {**counts, "found": None}} for one in TWO_BY_TWO]
    assert verdict_table(unjudged) is None


def test_a_name_cannot_break_the_markdown():
    text = markdown("a|b", ["one\ntwo"], metric_tables(figures([line(category="x|y\nz")]))[:1])
    assert text.splitlines()[:3] == ["# a/b", "", "one two"]
    assert "| x/y z | 90.00 |" in text


def test_no_control_character_of_a_name_reaches_the_terminal_that_shows_a_report():
    page = markdown("cat\x1b[31m", ["a\u202egnp"], [])
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "# cat\\x1b[31m" in page
