"""cli: whatever goes wrong, a person gets one clear line and a script the right exit code; never a traceback."""

import os
import re
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.commands import complaint, run
from totalrecall.cli import main

# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--coreset 10", "--coreset must be over 0 and at most 1, got 10. For 10 percent write 0.1."),
        ("--coreset 0", "--coreset must be over 0 and at most 1, got 0."),
        ("--coreset nan", "--coreset must be over 0 and at most 1, got nan."),
        ("--patch-size 4", "--patch-size must be odd and at least 1, got 4. The paper uses 3."),
        ("--false-alarm-rate 1", "--false-alarm-rate must be between 0 and 1, got 1. Usual: 0.01."),
        ("--holdout 1", "--holdout must be at least 0 and under 1, got 1. Usual: 0.2."),
        ("--layers 2 2", "--layers must be different numbers such as 2 3, got 2 2."),
        ("--layers 2 4", "--layers: backbone added has no layer 4. It has: 1 2 3."),
        ("--size 8", "--size must be from 32 to 4096 pixels, got 8. Usual: 224 to 512."),
        ("--resize fill", "--resize must be one of squash, letterbox, crop, got 'fill'."),
        ("--crop 64", "--crop is only for --resize 'crop', got --crop 64 with --resize 'squash'."),
        ("--tile 0", "--tile must be from 1 to 16 pieces a side, got 0. 2 makes four pieces."),
        ("--scoring best", "--scoring must be one of extent, map1pct, top1pct, max, paper, got 'best'."),
        ("--precision int4", "--precision must be one of auto, f32, bf16, int8, got 'int4'."),
        ("--threads 0", "--threads must be at least 1, got 0. Leave it out to use all cores."),
        ("--seed -1", "--seed must be at least 0, got -1."),
    ],
)
def test_a_setting_out_of_range_is_named_as_the_person_typed_it(capsys, added, parts, tmp_path, options, message):
    fit = ["fit", parts / "train", "-o", tmp_path / "m.trecall", "--backbone", added, "--size", 64]
    assert complaint(capsys, *fit, *options.split()) == (2, message)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_precision_is_not_blamed_on_the_model(capsys, model, parts):
    told = (2, "--precision must be one of auto, f32, bf16, got 'int8'.")
    assert complaint(capsys, "predict", model, parts, "--precision", "int8") == told


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "learn",
        "fit",
        "fit parts",
        "fit parts -o m --coreset much",
        "fit parts -o m --memory much",
        "fit parts -o m --no-such-option",
        "predict m",
        "evaluate m root --layout imagenet",
    ],
)
def test_wrong_usage_exits_with_2_and_says_how(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: totalrecall")
    assert "error: " in err.splitlines()[-1]


def test_too_little_memory_is_refused_with_what_would_do(capsys, added, parts, tmp_path):
    code, message = complaint(
        capsys, "fit", parts / "train", "-o", tmp_path / "m", "--backbone", added, "--memory", "50MB"
    )
    assert code == 2
    assert re.fullmatch(
        r"--memory must be at least [\d.]+[MG]B to build and search a bank of \d+ vectors of 384 numbers, got 50MB\.",
        message,
    )


def test_a_size_that_is_none_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "parts", "-o", "m", "--memory", "2apples"])
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("error: argument --memory: must be a size such as 500MB, 2GB or 1.5GiB, got '2apples'.")
    )


def test_a_backbone_that_is_not_there_exits_with_3(capsys, parts, tmp_path):
    code, message = complaint(capsys, "fit", parts / "train", "-o", tmp_path / "m", "--backbone", "vit")
    assert code == 3
    assert message.startswith("No backbone is called 'vit'. There are: ")
    assert message.endswith("Add one with: totalrecall backbones add vit --weights FILE")


def test_weights_that_cannot_be_used_exit_with_3(capsys, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04")
    assert complaint(capsys, "backbones", "add", "resnet18", "--weights", tmp_path / "w.pth")[0] == 3


def test_a_mask_that_is_empty_or_no_picture_is_named(capsys, added, parts, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((8, 8), np.uint8))
    fit = ["fit", parts / "train", "-o", tmp_path / "m", "--backbone", added, "--roi"]
    assert complaint(capsys, *fit, tmp_path / "black.png") == (
        2,
        "The region-of-interest mask is empty: white pixels mark what is inspected.",
    )
    assert complaint(capsys, *fit, tmp_path / "none.png") == (1, f"{tmp_path / 'none.png'} does not exist.")


# ---------------------------------------------------------------------- places


def test_places_that_cannot_be_written_are_found_before_the_work(capsys, added, model, parts, tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "m"
    fit = ["fit", parts / "train", "--backbone", added]
    predict = ["predict", model, parts / "test"]
    told = f"Cannot write {below}: {tmp_path / 'file'} is a file. Name a folder that can be written."
    assert complaint(capsys, *fit, "-o", below) == (1, told)
    assert complaint(capsys, *fit, "-o", tmp_path / "m", "--json", below) == (1, told)
    assert complaint(capsys, *predict, "--json", below) == (1, told)
    assert complaint(capsys, *predict, "--csv", below) == (1, told)
    assert complaint(capsys, *fit, "-o", tmp_path) == (
        1,
        f"{tmp_path} is a folder. Give a file to write, such as {tmp_path / 'part.trecall'}.",
    )
    assert complaint(capsys, *predict, "--json", tmp_path) == (
        1,
        f"Cannot write {tmp_path}: it is a folder. Name a file in it.",
    )
    assert complaint(capsys, *predict, "--heatmaps", tmp_path / "file") == (
        1,
        f"{tmp_path / 'file'} is a file. Name a folder for --heatmaps.",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_picture_is_written_over(capsys, added, model, parts):
    a, b = parts / "test" / "good" / "000.png", parts / "test" / "good" / "001.png"
    before = a.read_bytes()
    for option in ("--json", "--csv"):  # `--json *.png`
        assert complaint(capsys, "predict", model, option, a, b) == (
            2,
            f"{option} {a} is named like a picture, and one of yours could be lost. Name it otherwise.",
        )
    assert complaint(capsys, "fit", b, "--backbone", added, "-o", a)[0] == 2
    assert complaint(capsys, "predict", model, a, b, "--heatmaps", a.parent) == (
        2,
        f"--heatmaps {a.parent} would write over {a}, given as PICTURES. Name another folder.",
    )
    assert a.read_bytes() == before


def test_two_outputs_in_one_place_are_refused(capsys, model, parts, tmp_path):
    for target in ("-", tmp_path / "x"):
        code, message = complaint(capsys, "predict", model, parts / "test", "--json", target, "--csv", target)
        assert (code, message) == (2, f"--json and --csv must be two files, got {target} for both.")


def test_an_empty_name_of_a_scripts_unset_variable_is_refused(capsys, model, parts):
    assert complaint(capsys, "predict", model, "")[1].startswith("An empty name was given.")
    assert complaint(capsys, "predict", model, parts, "--json", "") == (
        2,
        "--json must name a file to write, got an empty name.",
    )


def test_inputs_that_are_not_there_are_named(capsys, model, parts, tmp_path):
    assert complaint(capsys, "predict", model, tmp_path)[0] == 1
    assert complaint(capsys, "predict", model, tmp_path / "none" / "*.png")[0] == 1
    assert complaint(capsys, "fit", tmp_path / "none", "-o", tmp_path / "m")[0] in (1, 3)
    assert complaint(capsys, "evaluate", model, tmp_path, "--layout", "mtd")[0] == 1
    assert complaint(capsys, "fit", parts, parts, "--layout", "mvtec", "-o", tmp_path / "m")[0] in (2, 3)


def test_a_file_without_a_good_picture_stops_the_fit(capsys, added, tmp_path):
    (tmp_path / "a.png").touch()
    code, message = complaint(capsys, "fit", tmp_path, "-o", tmp_path / "m", "--backbone", added)
    assert code == 1
    assert message == f"None of the 1 pictures could be read. The first: {tmp_path / 'a.png'} is empty (0 bytes)."


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_is_no_unicode_is_scored_and_told(capsys, model, parts, tmp_path):
    import json

    path = tmp_path / os.fsdecode(b"\xff\n.png")
    path.write_bytes((parts / "test" / "good" / "000.png").read_bytes())
    (tmp_path / "b\nad.png").touch()
    code, out, err = run(
        capsys, "predict", model, tmp_path, "--json", tmp_path / "r.jsonl", "--csv", tmp_path / "r.csv"
    )
    assert code == 1
    assert len(err) == 1
    assert any("\\udcff" in line for line in out)
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == str(path)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes are Linux's")
def test_a_name_that_is_no_unicode_is_learnt_from(capsys, added, parts, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    for path in (parts / "train" / "good").glob("*.png"):
        (good / os.fsdecode(b"\xff" + path.name.encode())).write_bytes(path.read_bytes())
    fit = ["fit", good, "-o", tmp_path / "m", "--backbone", added, "--size", 64, "--coreset", 0.1, "--at-least", 1]
    assert run(capsys, *fit)[0] == 0
    assert run(capsys, "predict", tmp_path / "m", good)[0] == 0


# ---------------------------------------------------------------------- model files


def test_model_files_that_are_none_exit_with_3(capsys, model, tmp_path):
    whole, bad = model.read_bytes(), tmp_path / "part.trecall"
    contents = {
        b"": "damaged or not a model file",
        b"hello": "damaged or not a model file",
        whole[: len(whole) // 2]: "damaged or not a model file",
        whole[:-1]: "damaged or not a model file",
        whole + b"\0": "damaged or not a model file",
        b"\xff" * 64: "damaged or not a model file",
    }
    for content, part in contents.items():
        bad.write_bytes(content)
        for command in (["info", bad], ["predict", bad, "x.png"], ["evaluate", bad, ".", "--layout", "mtd"]):
            code, message = complaint(capsys, *command)
            assert code == 3
            assert message.startswith(f"{bad} is {part}")
            assert message.endswith("Copy or fit it again.")


def test_a_missing_model_and_a_folder_are_told(capsys, tmp_path):
    advice = "Make a model with: totalrecall fit GOOD... -o"
    assert complaint(capsys, "info", tmp_path / "m") == (3, f"{tmp_path / 'm'} does not exist. {advice} m")
    assert complaint(capsys, "info", tmp_path)[0] == 3


def rewritten(model, path, change):
    """Write a model file whose header was changed; everything else stays."""
    import json

    from totalrecall.detectors.model_file import read_header

    header = read_header(model)
    change(header)
    save_file(load_file(model), path, {"totalrecall": json.dumps(header)})
    return path


def test_a_file_of_a_newer_version_says_how_to_read_it(capsys, model, tmp_path):
    newer = rewritten(model, tmp_path / "m.trecall", lambda header: header.update(format=99))
    code, message = complaint(capsys, "info", newer)
    assert code == 3
    assert message.startswith(f"{newer} has model format 99, this version reads up to ")
    assert message.endswith("Install the newer Total Recall that wrote the file.")


def test_a_foreign_safetensors_file_is_named(capsys, tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "m.safetensors")
    code, message = complaint(capsys, "predict", tmp_path / "m.safetensors", "x.png")
    assert code == 3
    assert message.endswith("is a safetensors file but not a Total Recall model. Give a file that `fit` wrote.")


def set_in(name, **values):
    return lambda header: header[name].update(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("settings"),
        lambda header: header.pop("recipe"),
        lambda header: header.pop("pictures"),
        lambda header: header.pop("kind"),
        lambda header: header.update(kind="padim"),
        lambda header: header.update(settings=[1]),
        lambda header: header.update(backbone="compact"),
        lambda header: header.update(pictures={}),
        lambda header: header.update(format=None),
        lambda header: header.update(format=float("inf")),
        set_in("settings", coreset=7),
        set_in("settings", coreset="much"),
        set_in("settings", layers=[2, 8]),
        set_in("settings", layers=None),
        set_in("settings", surprise=1),
        set_in("recipe", size="64"),
        set_in("recipe", size=1),
        set_in("recipe", roi=[1]),
        set_in("backbone", sha256="0" * 64),
        set_in("backbone", layers=[]),
    ],
)
def test_a_header_that_was_changed_exits_with_3(capsys, model, tmp_path, change):
    bad = rewritten(model, tmp_path / "m.trecall", change)
    code, message = complaint(capsys, "info", bad)
    assert code == 3
    assert str(bad) in message


def test_bytes_flipped_at_random_never_give_a_traceback(capsys, model, parts, tmp_path):
    data = model.read_bytes()
    header = int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(5)
    # half of them in the header: nearly all the rest is vectors, where any value is as good as another
    places = [*rng.integers(0, 8 + header, 15), *rng.integers(8 + header, len(data), 15)]
    bad = tmp_path / "m.trecall"
    seen = set()
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(damaged)
        code, _, err = run(capsys, "info", bad)
        assert code in (0, 3), (place, err)
        assert len(err) == (code != 0), (place, err)
        seen.add(code)
    assert 3 in seen
