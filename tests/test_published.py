"""Published figures: every row can be used, means fit their categories, the wheel carries them."""

import csv
from pathlib import Path

import pytest

from totalrecall.backbones.resnet_layout import ARCHITECTURES
from totalrecall.benchmark import published as reference
from totalrecall.benchmark.published import MEAN, METRICS, PROTOCOLS, TRUST, published
from totalrecall.datasets import LAYOUTS, SETS
from totalrecall.errors import SettingError
from totalrecall.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
TABLES = sorted(Path(reference.__file__).parent.glob("*.csv"))
SHOTS = (None, 1, 5, 16, 50)
OTHERS = {"differnet", "ganomaly", "1-nn"}  # the PatchCore paper names them beside its own on magnetic tiles
ELSEWHERE = {"densenet201", "resnext101_32x8d"}  # of the paper's three backbones together


def everything():
    return [row for table in TABLES for shots in SHOTS for row in published(table.stem, shots=shots)]


def value(dataset, category, method, backbone, protocol, metric, shots=None):
    [found] = published(
        dataset,
        category=category,
        method=method,
        backbone=backbone,
        protocol=protocol,
        metric=metric,
        shots=shots,
    )
    return found.value


def test_every_line_of_every_table_is_a_row_that_can_be_asked_for():
    assert [table.stem for table in TABLES] == ["btad", "mstc", "mtd", "mvtec", "visa"]
    lines = 0
    for table in TABLES:
        with table.open(encoding="utf-8", newline="") as file:
            found = list(csv.reader(file))
        assert {len(line) for line in found} == {10}
        lines += len(found) - 1
    assert lines == len(everything()) > 600


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_rows_name_what_is_known(table):
    assert table.stem in LAYOUTS
    official = {MEAN, *SETS[table.stem].counts}
    for row in (row for row in everything() if row.dataset == table.stem):
        assert row.category in official, row
        assert row.metric in METRICS, row
        assert row.protocol in PROTOCOLS, row
        assert row.trust in TRUST, row
        assert row.method in {*KINDS, *OTHERS}, row
        names = row.backbone.split("+") if row.method in KINDS else []
        assert set(names) <= {*ARCHITECTURES, *ELSEWHERE}, row
        assert 0 <= row.value <= 100, row
        assert row.source.strip() == row.source != "", row
    assert {row.dataset for row in published(table.stem)} == {table.stem}


def test_no_figure_stands_twice():
    keys = [
        (row.dataset, row.category, row.method, row.backbone, row.protocol, row.metric, row.shots)
        for row in everything()
    ]
    assert len(set(keys)) == len(keys)


def test_every_protocol_is_explained_and_used():
    assert {row.protocol for row in everything()} == set(PROTOCOLS)


def test_means_are_those_of_the_categories():
    """A transcription error moves a mean. Categories are rounded to a tenth, and so were some means of rounded ones."""
    groups = {}
    for row in everything():
        key = (row.dataset, row.method, row.backbone, row.protocol, row.metric, row.shots)
        groups.setdefault(key, {})[row.category] = row.value
    compared = 0
    for key, values in groups.items():
        official = list(SETS[key[0]].counts)
        if MEAN in values and len(values) > 1:
            assert sorted(values) == sorted([*official, MEAN]), key
            assert sum(values[name] for name in official) / len(official) == pytest.approx(values[MEAN], abs=0.1), key
            compared += 1
    assert compared >= 40


def test_some_figures_by_hand():
    wide = "wide_resnet50_2"
    assert value("mvtec", "mean", "patchcore", wide, "paper-10", "image_auroc") == 99.0
    assert value("mvtec", "mean", "patchcore", wide, "paper-25", "image_auroc") == 99.1
    assert value("mvtec", "transistor", "patchcore", wide, "paper-1", "pixel_auroc") == 94.9
    assert value("mvtec", "mean", "patchcore", wide, "official-10", "pixel_aupro") == 94.37
    assert value("mvtec", "screw", "patchcore", wide, "official-10", "image_auroc") == 98.77
    assert value("mvtec", "bottle", "padim", wide, "own-paper", "pixel_auroc") == 98.3
    assert value("mvtec", "bottle", "spade", wide, "own-paper", "pixel_auroc") == 98.4
    assert value("mvtec", "mean", "padim", "resnet18", "anomalib", "image_f1") == 91.62
    assert value("mvtec", "mean", "patchcore", wide, "paper-25", "image_auroc", shots=1) == 84.1
    assert value("btad", "02", "patchcore", wide, "anomalib", "image_auroc") == 81.5
    assert value("visa", "pcb3", "padim", "resnet18", "anomalib", "image_f1") == 70.2
    assert value("mtd", "magnetic_tile", "patchcore", wide, "paper-10", "image_auroc") == 97.9
    assert value("mstc", "mean", "patchcore", wide, "paper-mstc", "pixel_auroc") == 91.8


def test_low_shot_figures_come_only_when_asked_for():
    mean = {"category": "mean", "method": "patchcore", "protocol": "paper-25", "metric": "image_auroc"}
    assert [row.value for row in published("mvtec", **mean)] == [99.1]
    assert [published("mvtec", **mean, shots=shots)[0].value for shots in (1, 5, 16, 50)] == [84.1, 91.0, 95.5, 97.7]
    assert published("mvtec", shots=3) == []
    assert {row.method for row in published("mvtec", shots=5)} == {"patchcore", "padim", "spade"}


def test_a_set_that_nothing_is_published_of_here_has_no_rows():
    assert published("folder") == published("kolektor") == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dataset": "mvtek"}, "dataset must be one of folder, mvtec, .*, got 'mvtek'."),
        ({"dataset": "../mvtec"}, "dataset must be one of"),
        ({"dataset": "mvtec", "metric": "auroc"}, "metric must be one of image_auroc, .*, got 'auroc'."),
        ({"dataset": "mvtec", "protocol": "paper-5"}, "protocol must be one of paper, .*, got 'paper-5'."),
    ],
)
def test_what_is_misspelt_is_named(asked, message):
    with pytest.raises(SettingError, match=message):
        published(**asked)


def test_the_wheel_carries_the_tables(monkeypatch):
    """What setuptools itself makes of the globs in pyproject.toml."""
    pytest.importorskip("setuptools")
    from setuptools.config.pyprojecttoml import load_file
    from setuptools.dist import Distribution

    monkeypatch.chdir(ROOT)
    data = load_file("pyproject.toml")["tool"]["setuptools"]["package-data"]
    distribution = Distribution({"package_data": data, "packages": ["totalrecall"], "package_dir": {"": "src"}})
    build = distribution.get_command_obj("build_py")
    build.finalize_options()
    packed = {Path(folder, name).resolve() for _, folder, _, names in build.data_files for name in names}
    assert {table.resolve() for table in TABLES} <= packed
