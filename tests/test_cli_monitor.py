"""What the command line says of the promise behind a threshold, of dirty pictures, and of a line that has moved."""

import json

import cv2
import numpy as np
import pytest

from totalrecall.cli import main


@pytest.fixture(scope="module")
def model(added, parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("watched") / "part.trecall"
    options = ["--backbone", added, "--size", "64", "--precision", "f32", "--quiet"]
    assert main(["fit", str(parts), "--layout", "mvtec", "-o", str(path), *options]) == 0
    return path


def test_monitor_says_when_the_light_has_moved_and_goes_on_with_its_file(model, parts, tmp_path, capsys):
    good = parts / "train" / "good"
    bright = tmp_path / "bright"
    bright.mkdir()
    for at in range(9):
        for path in sorted(good.glob("*.png")):
            lighter = np.clip(cv2.imread(str(path)) * 1.3, 0, 255).astype(np.uint8)
            cv2.imwrite(str(bright / f"{at}{path.name}"), lighter)
    file = tmp_path / "line.monitor"
    assert main(["predict", str(model), str(good), "--monitor", str(file)]) == 0
    assert "Drift: nothing has moved (10 pictures watched" in capsys.readouterr().out
    assert main(["predict", str(model), str(bright), "--monitor", str(file)]) == 0
    told = capsys.readouterr()
    assert "% brighter than the good ones" in told.err
    assert "Drift: since picture" in told.out


def test_monitor_needs_a_file_of_its_own(model, parts, tmp_path, capsys):
    assert main(["predict", str(model), str(parts), "--monitor", str(model)]) == 2
    assert f"--monitor {model} would write over {model}, given as MODEL. Name another file." in capsys.readouterr().err


def test_info_tells_what_stands_behind_the_threshold(model, tmp_path, capsys):
    file = tmp_path / "facts.json"
    assert main(["info", str(model), "--json", str(file), "--parts-per-day", "2200"]) == 0
    facts = json.loads(file.read_text())
    assert facts["calibration_pictures"] == facts["calibration_folds"] == 10
    assert facts["smallest_rate_by_rank"] == facts["guaranteed_rate"] == pytest.approx(1 / 11)
    assert facts["false_alarms_per_day"] == pytest.approx(200)
    assert sum(facts["scores_of_good_pictures"]["counts"]) == 10
    assert facts["scores_of_good_pictures"]["edges"][-1] == pytest.approx(facts["threshold"])
    assert "drift" in facts
    out = capsys.readouterr().out
    assert "scores of good pictures" in out
    assert "<- threshold" in out


def test_info_refuses_a_day_without_parts(model, capsys):
    assert main(["info", str(model), "--parts-per-day", "0"]) == 2
    assert "--parts-per-day must be at least 1, got 0." in capsys.readouterr().err


def test_fit_names_what_is_unlike_the_others_or_leaves_it_out(added, tmp_path, capsys):
    folder = tmp_path / "good"
    folder.mkdir()
    rng = np.random.default_rng(1)  # with 0 another one is unlike the others, too
    for at in range(24):
        columns = 128 + 60 * np.sin(np.arange(90) / 4 + rng.uniform(0, 0.3))
        picture = np.clip(columns[None, :, None] + rng.normal(0, 6, (70, 90, 3)), 0, 255).astype(np.uint8)
        if at == 5:
            picture[30:45, 40:60] = (20, 20, 230)
        cv2.imwrite(str(folder / f"{at:02}.png"), picture)
    options = ["--backbone", added, "--size", "64", "--precision", "f32", "--coreset", "0.2", "--at-least", "1"]
    assert main(["fit", str(folder), "-o", str(tmp_path / "a.trecall"), *options]) == 0
    out = capsys.readouterr().out
    assert "Note: 1 of 24 good pictures is unlike the others:" in out
    assert "05.png" in out
    file = tmp_path / "fit.json"
    assert (
        main(
            ["fit", str(folder), "-o", str(tmp_path / "b.trecall"), "--ignore-outliers", "--json", str(file), *options]
        )
        == 0
    )
    assert "Left out the bad patches of" in capsys.readouterr().out
    left_out = [path[-6:] for path in json.loads(file.read_text())["outliers"]]
    assert left_out[0] == "05.png"
    assert len(left_out) <= 2  # of so few and so small pictures another may stand out, too


def test_other_methods_have_no_guard(parts, tmp_path, capsys):
    assert main(["fit", str(parts), "-o", str(tmp_path / "m"), "--method", "padim", "--ignore-outliers"]) == 2
    assert "--ignore-outliers is only for --method patchcore, got --method padim." in capsys.readouterr().err
