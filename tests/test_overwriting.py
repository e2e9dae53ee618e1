"""The Python interface writes over no picture that it learnt or judges, by whatever name."""

import os
import shutil

import pytest

from totalrecall import PatchCore
from totalrecall.errors import SettingError
from totalrecall.reports.writer import ReportWriter, report_pictures


@pytest.fixture
def pictures(good, tmp_path):
    return [shutil.copy(path, tmp_path / path.name) for path in sorted(good.iterdir())[:12]]


def names_of(path, folder):
    os.link(path, folder / "hard")
    (folder / "soft").symlink_to(path)
    return [path, folder / "hard", folder / "soft", folder / "." / path.name]


def test_a_model_is_not_saved_over_a_picture_that_it_learnt(tiny_backbone, pictures, tmp_path):
    detector = PatchCore(backbone=tiny_backbone, size=64, coreset=0.1, at_least=1).fit(pictures)
    before = pictures[3].read_bytes()
    for name in names_of(pictures[3], tmp_path):
        with pytest.raises(SettingError, match=r"must name a file of its own, got .*, a picture that the model learnt"):
            detector.save(name)
    assert pictures[3].read_bytes() == before
    for _ in range(2):  # over an old model it may
        detector.save(tmp_path / "m.trecall")


def test_a_report_is_not_written_over_a_picture_that_it_is_about(tiny_backbone, pictures, tmp_path):
    detector = PatchCore(backbone=tiny_backbone, size=64, coreset=0.1, at_least=1).fit(pictures[4:])
    before = pictures[0].read_bytes()
    for name in names_of(pictures[0], tmp_path):
        with pytest.raises(SettingError, match=r"must name a file of its own, got .*, a picture to judge"):
            report_pictures(detector, pictures, name)
        report = ReportWriter(name, detector)
        report.add(pictures[0], detector.predict(pictures[0]))
        with pytest.raises(SettingError, match=r"must name a file of its own, got .*, a picture to judge"):
            report.write("Mine")
    assert pictures[0].read_bytes() == before
