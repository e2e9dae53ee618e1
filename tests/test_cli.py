"""cli: the main job as a person types it, and what a program reads of it."""

import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from tests.commands import EVALUATE_KEYS, PREDICT_KEYS, run, small, spoil
from tests.parts import stripes
from totalrecall.backbones import load
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.pictures.decode import PictureFile
from totalrecall.pictures.loading import read_image
from totalrecall.system.memory import resident_memory
from totalrecall.system.text import format_size, human_bytes

# ---------------------------------------------------------------------- fit


def test_fit_says_what_it_did_and_writes_the_model(capsys, added, parts, tmp_path):
    output = tmp_path / "new" / "part.trecall"
    code, out, err = run(capsys, "fit", parts / "train" / "good", "-o", output, *small(added))
    assert (code, err) == (0, [])
    assert out[0].startswith("Plan: 10 pictures, 640 patches of 384 numbers (983 kB); at most ")
    assert out[0].endswith(", no scratch")
    assert out[1] == "Bank: 64 of 640 patches (384 numbers each) from 10 pictures"  # 8 x 8 patches, a tenth of them
    assert re.fullmatch(
        r"Threshold \d+\.\d+, set by 10-fold cross-validation on 10 good pictures\. "
        r"False alarms: at most 9\.09 % on average\.",
        out[2],
    )
    assert out[3].startswith("Thresholds by false-alarm rate: 1 % ")
    assert out[4].startswith("Time: features ")
    assert out[5] == (
        "Note: 10 good pictures are too few for a false-alarm rate of 1 % (the lowest possible is 9.09 %). "
        "The threshold is their highest score. Use at least 99 good pictures."
    )
    assert out[6] == f"Wrote {output} ({human_bytes(output.stat().st_size)})"
    assert [path.name for path in output.parent.iterdir()] == ["part.trecall"]


def test_fit_tells_a_program_as_json(capsys, added, parts, tmp_path):
    output = tmp_path / "part.trecall"
    code, out, err = run(capsys, "fit", parts / "train", "-o", output, "--json", "-", "--no-embed", *small(added))
    facts = json.loads("\n".join(out))
    assert code == 0
    assert facts["model"] == str(output)
    assert (facts["pictures"], facts["vectors"], facts["patches"], facts["skipped"]) == (10, 64, 640, [])
    assert facts["guaranteed_rate"] == pytest.approx(1 / 11)
    assert (facts["chunks"], facts["scratch"], facts["plan"]["way"]) == (1, 0, "memory")
    assert facts["plan"]["patches"] == 640
    assert "seconds" not in facts["plan"]
    assert any(line.startswith("Bank: ") for line in err)  # the person's lines leave stdout alone


def test_fit_says_when_memory_has_it_choose_in_chunks(capsys, monkeypatch, added, parts, tmp_path):
    from totalrecall.patchcore import plan as planning

    monkeypatch.setattr(planning, "_whole", lambda _: None)
    monkeypatch.setattr(planning, "_cut", lambda pictures, _: [pictures[:4], pictures[4:]] if len(pictures) else [])
    given = resident_memory() + (1 << 30)  # what the tests before took is in the limit, too
    code, out, err = run(capsys, "fit", parts / "train", "-o", tmp_path / "m", *small(added), "--memory", str(given))
    assert (code, err) == (0, [])
    assert f"(allowed {human_bytes(given)}), " in out[0]
    assert out[0].endswith(" of scratch")
    assert out[1].startswith(
        f"Note: {format_size(given)} of memory are too little for all patches at once, so the coreset is chosen in 4 "
    )
    assert re.search(r"the exact one needs (\S+) \(--memory \1\)\.$", out[1])
    assert re.search(r" from 10 pictures, every patch within [\d.]+ of it \(4 chunks\)$", out[2])


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_fit_of_40_pictures_decodes_40_and_runs_the_network_40_times(capsys, monkeypatch, added, tmp_path, quiet):
    """The plan looks at the headers of eight of them, and no picture warms the network up."""
    counts = {"decoded": 0, "network": 0}
    decode, stream = PictureFile.decode, OpenVinoEngine.stream

    def decoding(file):
        counts["decoded"] += 1
        return decode(file)

    def streaming(engine, pictures):
        for result in stream(engine, pictures):
            counts["network"] += 1
            yield result

    monkeypatch.setattr(PictureFile, "decode", decoding)
    monkeypatch.setattr(OpenVinoEngine, "stream", streaming)
    folder = tmp_path / "good"
    folder.mkdir()
    for at in range(40):
        cv2.imwrite(str(folder / f"{at:02}.png"), stripes(at))
    code, _, err = run(capsys, "fit", folder, "-o", tmp_path / "m", *small(added), *quiet)
    assert (code, err) == (0, [])
    assert counts == {"decoded": 40, "network": 40}


def test_the_same_fit_gives_the_same_bytes(capsys, added, parts, model, tmp_path):
    again = tmp_path / "part.trecall"
    code, out, _ = run(capsys, "fit", parts, "--layout", "mvtec", "-o", again, *small(added), "--quiet")
    assert (code, out) == (0, [])
    assert again.read_bytes() == model.read_bytes()


def test_fit_names_bad_pictures_learns_from_the_others_and_exits_with_1(capsys, added, parts, tmp_path):
    good = shutil.copytree(parts / "train" / "good", tmp_path / "good")
    bad = spoil(good)
    code, out, err = run(capsys, "fit", good, "-o", tmp_path / "m.trecall", *small(added))
    assert code == 1
    assert out[1].endswith("from 10 pictures")
    assert err == [f"totalrecall: {message}" for message in bad]


# ---------------------------------------------------------------------- predict


def test_predict_prints_a_line_a_picture(capsys, model, parts):
    code, out, err = run(capsys, "predict", model, parts / "test" / "good")
    assert (code, err) == (0, [])
    assert len(out) == 4
    for line, name in zip(out, ("000", "001", "002"), strict=False):
        assert line.split()[0] in ("good", "DEFECT")
        assert line.endswith(f"  {parts / 'test' / 'good' / name}.png")
    assert out[3].startswith("3 pictures in ")
    assert "pictures/s" in out[3]


def test_one_picture_and_many_are_judged_alike(capsys, model, parts, tmp_path):
    pictures = sorted((parts / "test").rglob("*.png"))
    many, one = tmp_path / "many.jsonl", tmp_path / "one.jsonl"
    run(capsys, "predict", model, *pictures, "--json", many)
    run(capsys, "predict", model, pictures[2], "--json", one)
    alone, among = json.loads(one.read_text()), json.loads(many.read_text().splitlines()[2])
    assert alone["path"] == among["path"]
    assert alone["score"] == pytest.approx(among["score"], rel=1e-5)


def test_the_json_of_predict_is_the_contract(capsys, model, parts, tmp_path):
    target = tmp_path / "new" / "results.jsonl"
    code, _, _ = run(capsys, "predict", model, parts / "test", "--json", target)
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert [line["path"] for line in lines] == [str(path) for path in sorted((parts / "test").rglob("*.png"))]
    for line in lines:
        assert list(line) == PREDICT_KEYS
        assert line["is_anomalous"] is (line["score"] > line["threshold"])
        assert 0 < line["p_value"] <= 1
        assert list(line["nearest"]) == ["path", "x", "y"]
        assert line["nearest"]["path"].startswith(str(parts / "train" / "good"))
        assert 0 <= line["nearest"]["x"] < 96
        assert 0 <= line["nearest"]["y"] < 80
        for region in line["regions"]:
            assert list(region) == ["x", "y", "width", "height", "area", "peak"]
            assert 0 <= region["x"] < region["x"] + region["width"] <= 96
            assert 0 <= region["y"] < region["y"] + region["height"] <= 80
    assert [path.name for path in target.parent.iterdir()] == ["results.jsonl"]


def test_json_and_csv_agree(capsys, model, parts, tmp_path):
    code, out, _ = run(
        capsys, "predict", model, parts / "test", "--json", tmp_path / "r.jsonl", "--csv", tmp_path / "r.csv", "-q"
    )
    assert (code, out) == (0, [])
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 6
    for row, line in zip(rows, lines, strict=True):
        assert row["path"] == line["path"]
        assert float(row["score"]) == line["score"]
        assert row["is_anomalous"] == str(line["is_anomalous"])
        assert int(row["regions"]) == len(line["regions"])
        assert row["nearest_path"] == line["nearest"]["path"]


def test_json_on_stdout_is_nothing_but_json(capsys, model, parts):
    code, out, err = run(capsys, "predict", model, parts / "test" / "good", "--json", "-")
    assert code == 0
    assert [list(json.loads(line)) for line in out] == [PREDICT_KEYS] * 3
    assert err[0].startswith("3 pictures in ")


def test_quiet_prints_the_results_and_nothing_else(capsys, model, parts):
    code, out, err = run(capsys, "predict", model, parts / "test" / "good", "--quiet")
    assert (code, len(out), err) == (0, 3, [])


def test_broken_files_among_good_ones_are_named_and_the_others_done(capsys, model, parts, tmp_path):
    folder = shutil.copytree(parts / "train" / "good", tmp_path / "line")
    bad = spoil(folder)
    code, out, err = run(capsys, "predict", model, folder, "--json", tmp_path / "r.jsonl")
    assert code == 1
    assert err == [f"totalrecall: {message}" for message in bad]
    assert out[-1].startswith("10 pictures in ")
    assert out[-1].endswith("; 3 could not be read")
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 10


def test_one_picture_that_is_broken_exits_with_1(capsys, model, tmp_path):
    (tmp_path / "x.png").touch()
    code, _, err = run(capsys, "predict", model, tmp_path / "x.png")
    assert (code, err) == (1, [f"totalrecall: {tmp_path / 'x.png'} is empty (0 bytes)."])


def test_a_defect_gives_10_only_where_it_was_asked_for(capsys, model, parts, tmp_path):
    noise = tmp_path / "noise.png"
    import cv2

    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8))
    assert run(capsys, "predict", model, noise)[0] == 0
    assert run(capsys, "predict", model, noise, "--fail-on-anomaly")[0] == 10
    learnt = parts / "train" / "good" / "000.png"
    assert run(capsys, "predict", model, learnt, "--fail-on-anomaly")[0] == 0


def test_heat_maps_keep_the_folders_and_no_two_share_a_name(capsys, model, parts, tmp_path):
    folder = tmp_path / "in"
    for name in ("a/1.png", "b/1.png", "b/1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(parts / "test" / "good" / "000.png", folder / name)
    code, out, _ = run(capsys, "predict", model, folder, "--heatmaps", tmp_path / "out")
    assert code == 0
    assert out[-1] == f"Wrote heat maps to {tmp_path / 'out'}"
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [".totalrecall-heatmaps", "a/1.png", "b/1.png", "b/1.png.png"]
    assert read_image(tmp_path / "out" / "a" / "1.png").ndim == 3


# ---------------------------------------------------------------------- evaluate


def test_evaluate_measures_the_mvtec_layout(capsys, model, parts):
    code, out, err = run(capsys, "evaluate", model, parts, "--layout", "mvtec", "--json", "-")
    figures = json.loads("\n".join(out))
    assert code == 0
    assert list(figures)[:6] == EVALUATE_KEYS
    assert figures["images"] == 6
    assert 0 <= figures["image_auroc"] <= 1
    assert 0 <= figures["pixel_aupro"] <= 1
    assert err[-1].startswith("6 pictures in ")


def test_evaluate_prints_the_metrics_even_when_quiet(capsys, model, parts):
    code, out, err = run(capsys, "evaluate", model, parts, "--layout", "mvtec", "--quiet")
    assert (code, err) == (0, [])
    assert [line[:16].strip() for line in out[:4]] == [
        "image AUROC",
        "image F1 (best)",
        "pixel AUROC",
        "pixel AUPRO 0.3",
    ]
    assert all(0 <= float(line[16:]) <= 1 for line in out[:4])
    assert re.fullmatch(
        r"found \d of 3 defects, \d false alarms? among 3 good pictures \(at the model's threshold\)", out[4]
    )


def test_evaluate_takes_a_plain_folder_and_says_what_a_set_without_masks_cannot_give(capsys, added, parts, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(parts / "train" / "good", root / "good")
    shutil.copytree(parts / "test" / "good", root / "strange")
    fitted = tmp_path / "m.trecall"
    assert run(capsys, "fit", root, "--layout", "folder", "-o", fitted, *small(added), "--seed", 7)[0] == 0
    code, out, err = run(capsys, "evaluate", fitted, root, "--layout", "folder", "--json", tmp_path / "e.json")
    assert code == 0
    assert err == [
        "totalrecall: warning: None of the 3 anomalous pictures has a mask: pixel metrics will be nan."
    ]  # and of no leak: evaluate splits by the fit's own seed
    figures = json.loads((tmp_path / "e.json").read_text())
    assert figures["images"] == 2 + 3  # a fifth of ten
    assert figures["seed"] == 7
    assert figures["pixel_auroc"] is None
    assert any(line.startswith("pixel metrics: ") for line in out)
    _, _, err = run(capsys, "evaluate", fitted, root, "--layout", "folder", "--seed", 8)
    assert "test pictures are among those that the model learnt" in err[-1]


def test_fit_and_evaluate_agree_on_the_split_of_magnetic_tiles(capsys, added, parts, tmp_path):
    import cv2

    for kind, source in (("Free", parts / "train" / "good"), ("Break", parts / "test" / "good")):
        (tmp_path / f"MT_{kind}" / "Imgs").mkdir(parents=True)
        for path in source.glob("*.png"):
            target = tmp_path / f"MT_{kind}" / "Imgs" / path.stem
            cv2.imwrite(f"{target}.jpg", cv2.imread(str(path)))
            cv2.imwrite(f"{target}.png", np.full((80, 96), 255, np.uint8))
    fitted = tmp_path / "m.trecall"
    assert run(capsys, "fit", tmp_path, "--layout", "mtd", "--seed", 42, "-o", fitted, *small(added))[0] == 0
    code, _, err = run(capsys, "evaluate", fitted, tmp_path, "--layout", "mtd", "--json", tmp_path / "e.json")
    assert code == 0
    assert not [line for line in err if "bank" in line]
    assert json.loads((tmp_path / "e.json").read_text())["images"] == 2 + 3


def test_evaluate_names_bad_files_and_exits_with_1(capsys, model, parts, tmp_path):
    root = shutil.copytree(parts, tmp_path / "set")
    (root / "test" / "good" / "001.png").write_bytes(b"")
    code, out, err = run(capsys, "evaluate", model, root, "--layout", "mvtec")
    assert code == 1
    assert f"totalrecall: {root / 'test' / 'good' / '001.png'} is empty (0 bytes)." in err
    assert out[-1].startswith("5 pictures in ")


# ---------------------------------------------------------------------- info, backbones


def test_info_prints_what_the_model_holds(capsys, model, added):
    code, out, err = run(capsys, "info", model)
    assert (code, err) == (0, [])
    facts = {line[:25].strip(): line for line in out}
    assert any(added in line for name, line in facts.items() if name.startswith("backbone"))
    code, out, _ = run(capsys, "info", model, "--json", "-")
    facts = json.loads("\n".join(out))
    assert (facts["training_pictures"], facts["bank_vectors"], facts["dimensions"]) == (10, 64, 384)
    assert facts["backbone_sha256"] == load(added).sha256
    assert facts["prepared"]["size"] == 64
    assert facts["settings"]["seed"] == 42
    assert facts["backbone_inside"] is True


def test_what_is_not_known_is_null_in_json(capsys, added, parts, tmp_path):
    path = tmp_path / "m.trecall"
    code, _, err = run(
        capsys, "fit", parts / "train", "-o", path, "--holdout", 0, "--json", tmp_path / "f.json", *small(added)
    )
    assert code == 0
    assert err[-1].startswith("totalrecall: warning: no picture was held out, so there is no threshold and no verdict")
    assert json.loads((tmp_path / "f.json").read_text(), parse_constant=pytest.fail)["threshold"] is None
    _, out, _ = run(capsys, "info", path, "--json", "-")
    assert json.loads("\n".join(out), parse_constant=pytest.fail)["threshold"] is None
    code, out, _ = run(capsys, "predict", path, parts / "test" / "good" / "000.png", "--json", "-")
    (line,) = (json.loads(text, parse_constant=pytest.fail) for text in out)
    assert (code, line["threshold"], line["p_value"], line["is_anomalous"]) == (0, None, None, None)


def test_backbones_are_listed_and_added(capsys, added, session_home, tmp_path):
    from safetensors.numpy import save_file

    from tests.resnet_forward import random_weights

    save_file(random_weights("resnet18", stages=1), tmp_path / "w.safetensors")
    code, out, err = run(
        capsys, "backbones", "add", "resnet18", "--weights", tmp_path / "w.safetensors", "--save-as", "mine"
    )
    assert (code, err) == (0, [])
    assert out[0].startswith("Added mine: layers 1, sha256 ")
    assert out[1] == "Use it with: --backbone mine"
    code, out, _ = run(capsys, "backbones", "list")
    assert code == 0
    assert any(line.startswith("mine") for line in out)
    _, out, _ = run(capsys, "backbones", "list", "--json", "-")
    listed = {info["name"]: info for info in json.loads("\n".join(out))["backbones"]}
    assert listed[added]["layers"] == {"layer1": 64, "layer2": 128, "layer3": 256}
    assert listed["mine"]["path"] == str(session_home / "backbones" / "mine.onnx")
    (session_home / "backbones" / "mine.onnx").unlink()
