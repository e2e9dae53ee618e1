"""Running commands as a person types them, and what they say."""

import os
import subprocess
import sys

from totalrecall.cli import main, predict

PREDICT_KEYS = ["path", "score", "threshold", "is_anomalous", "p_value", "regions", "nearest", "milliseconds"]
EVALUATE_KEYS = ["image_auroc", "image_f1", "pixel_auroc", "pixel_aupro", "images", "seconds"]
SMALL = {"size": 64, "coreset": 0.1, "precision": "f32", "threads": 1}  # settings of a detector that fits quickly


def run(capsys, *arguments):
    """Run a command; return its exit code, and the lines of stdout and of stderr."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def small(added):
    return ["--backbone", added, "--size", "64", "--coreset", "0.1", "--at-least", "1", "--precision", "f32"]


def in_fresh_python(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def spoil(folder):
    """Put three broken files into a folder; return what is said of them, in the order of their names."""
    whole = (folder / "000.png").read_bytes()
    (folder / "003_torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "005_empty.jpg").touch()
    (folder / "zz_text.png").write_text("this is no picture")
    return [
        f"{folder / '003_torn.png'} is truncated: its end is missing. Copy it again.",
        f"{folder / '005_empty.jpg'} is empty (0 bytes).",
        f"{folder / 'zz_text.png'} is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP.",
    ]


def complaint(capsys, *arguments):
    """Run a command that must fail; return its exit code and the one line on stderr without the program's name."""
    code, _, err = run(capsys, *arguments)
    assert len(err) == 1, err
    assert err[0].startswith("totalrecall: ")
    return code, err[0].removeprefix("totalrecall: ")


def interrupt_after_one_picture(monkeypatch):
    """Make `predict` end as by Ctrl-C once it has judged one picture."""
    results = predict._results

    def interrupted(*arguments):
        yield next(results(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "_results", interrupted)
