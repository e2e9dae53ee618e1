"""cli: no output is an input, whatever the command, the option and the name that a file is given by."""

import argparse
import os
import shutil

import pytest

from tests.commands import complaint, run
from totalrecall.cli import build_parser
from totalrecall.cli.options import fraction
from totalrecall.cli.paths import PathArgument, actions_of

# what takes words, and no path; whoever adds an option says here or by its type what it is
WORDS = {
    "--backbone", "--bit-depth", "--categories", "--descriptor", "--device", "--engine", "--form", "--layers",
    "--licence", "--precision", "--resize", "--save-as", "--scoring", "--sizes", "--source", "NAME",
    "--allow-host", "--database", "--expect-head", "--host", "--judgement", "--model", "--proxy", "--serial", "--since",
    "--until", "--verdict", "--ray", "--replicas",
    "--camera", "--mqtt", "--mqtt-prefix", "--opcua", "--watch", "--webhook",  # addresses, or a model before the folder
}  # fmt: skip


def commands(parser=None, name=()):
    """Yield each command's words and its parser."""
    parser = parser or build_parser()
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, command in action.choices.items():
            yield from commands(command, (*name, word))
    if not below:
        yield name, parser


def label(action):
    longest = [name for name in action.option_strings if name.startswith("--")]
    return longest[0] if longest else action.metavar


def title(value):
    if isinstance(value, argparse.Action):
        return label(value)
    return " ".join(value) if isinstance(value, tuple) else ""


def undeclared(parser):
    """Return the arguments that take a text and say neither that it is a path nor that it is none."""
    return [
        label(action)
        for action in actions_of(parser)
        if action.nargs != 0 and not isinstance(action, argparse._SubParsersAction)
        if action.type in (None, str) and action.choices is None and label(action) not in WORDS
    ]


@pytest.mark.parametrize(("name", "parser"), list(commands()), ids=title)
def test_every_argument_that_takes_a_path_says_whether_it_is_read_or_written(name, parser):
    assert undeclared(parser) == []
    paths = [action for action in actions_of(parser) if isinstance(action.type, PathArgument)]
    assert all(action.type.reads or action.type.writes for action in paths)
    for action in actions_of(parser):
        if action.metavar in ("FILE", "DIR", "MODEL", "PICTURES", "GOOD", "ROOT", "MASK", "OUT"):
            assert isinstance(action.type, PathArgument), label(action)


def test_a_new_option_that_does_not_say_so_would_be_seen():
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", metavar="FILE")
    assert undeclared(parser) == ["--table"]


# ---------------------------------------------------------------------- every command, output and input


def path_arguments(parser, which):
    return [
        action for action in actions_of(parser) if isinstance(action.type, PathArgument) and getattr(action.type, which)
    ]


def pairs():
    """Yield every command with each of its outputs and each of its inputs."""
    for name, parser in commands():
        for output in path_arguments(parser, "writes"):
            for given in path_arguments(parser, "reads"):
                if given.dest != output.dest:
                    yield name, parser, output, given


def typed(parser, words, output, given, target, source):
    """Return a command line with just what is required, and with that output and that input."""
    line = list(words)
    options = []
    for action in parser._actions:
        value = (
            source if action is given else target if action is output else "0.5" if action.type is fraction else "other"
        )
        if action.choices and action.dest not in ("kinds",):
            value = next(iter(action.choices))
        needed = action.required or action in (given, output)
        if action.option_strings and needed:
            options += [label(action), str(value)]
        elif not action.option_strings and (needed or action.dest == "layout"):
            line.append(str(value))
    if words == ("update",) and not {"--add", "--remove"} & set(options):
        options.append("--undo")
    return line + options


def spellings(folder, file):
    """Yield other names of a file: links, a detour, and case where the file system has none."""
    (folder / "a").mkdir()
    yield file
    yield folder / "a" / ".." / file.name
    for link, name in ((os.symlink, "soft"), (os.link, "hard")):
        link(file, folder / name)
        yield folder / name
    if (folder / file.name.upper()).exists():
        yield folder / file.name.upper()


@pytest.mark.parametrize(
    ("words", "parser", "output", "given"),
    list(pairs()),
    ids=title,
)
def test_no_output_is_an_input(capsys, tmp_path, words, parser, output, given):
    source = tmp_path / ("input.onnx" if given.type.backbone else "input")
    source.write_bytes(b"what must not be lost")
    for target in spellings(tmp_path, source):
        code, message = complaint(capsys, *typed(parser, words, output, given, target, source))
        assert code == 2, message
        assert label(output) in message
        assert str(target) in message
        assert str(source) in message
        assert source.read_bytes() == b"what must not be lost"
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(["a", source.name, "soft", "hard"])
    assert (tmp_path / "soft").is_symlink()


def test_every_command_that_writes_and_reads_is_in_that_loop():
    found = {" ".join(words) for words, *_ in pairs()}
    assert found == {
        "audit", "fit", "predict", "evaluate", "benchmark", "update", "teach", "info", "datasets", "demo",
        "capability", "export", "serve", "station csv", "station users list", "station tokens list",
        "station evidence", "station study",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "parser"), list(commands()), ids=title)
def test_no_two_outputs_are_one_file(capsys, tmp_path, name, parser):
    outputs = path_arguments(parser, "writes")
    for at, first in enumerate(outputs):
        for second in outputs[at + 1 :]:
            line = typed(parser, name, first, second, tmp_path / "new", tmp_path / "." / "new")
            code, message = complaint(capsys, *line)
            assert code == 2
            assert {label(first), label(second)} <= set(message.split())
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- what an input is besides the name as typed


@pytest.mark.parametrize("given", ["{parts}", "{parts}/test", "{parts}/*/*/000.png", "{parts}/linked"])
def test_a_picture_of_a_folder_or_glob_is_an_input_too(capsys, model, parts, tmp_path, given):
    folder = shutil.copytree(parts, tmp_path / "parts")
    (folder / "linked").symlink_to(folder / "test")
    picture = folder / "test" / "good" / "000.png"
    before = picture.read_bytes()
    target = tmp_path / "r.jsonl"
    target.symlink_to(picture)
    code, message = complaint(capsys, "predict", model, given.format(parts=folder), "--json", target)
    assert code == 2
    assert message.startswith(f"--json {target} would write over {folder}")
    assert message.endswith("given as PICTURES. Name another file.")
    assert picture.read_bytes() == before


def test_a_mask_a_table_and_an_array_of_a_data_set_are_inputs_too(capsys, model, parts, tmp_path):
    root = shutil.copytree(parts, tmp_path / "parts")
    names = ["masks.npy", "1cls.csv", "image_anno.csv"]
    for name in names:
        (root / name).write_text("kept")
        code, _ = complaint(capsys, "evaluate", model, root, "--layout", "mvtec", "--json", root / name)
        assert code == 2
        assert (root / name).read_text() == "kept"
    mask = next((root / "ground_truth").rglob("*.png"))
    os.link(mask, tmp_path / "facts")
    assert complaint(capsys, "evaluate", model, root, "--layout", "mvtec", "--report", tmp_path / "facts")[0] == 2


def test_results_may_lie_in_the_folder_of_the_pictures_and_be_written_again(capsys, model, parts, tmp_path):
    folder = shutil.copytree(parts / "test" / "good", tmp_path / "parts")
    for _ in range(2):
        line = ["predict", model, folder, "--json", folder / "r.jsonl", "--csv", folder / "r.csv"]
        assert run(capsys, *line, "--report", folder / "r.html")[0] == 0


def test_the_name_under_which_lines_grow_is_an_output_too(capsys, model, parts, tmp_path):
    own = shutil.copy(model, tmp_path / "r.part")
    before = own.read_bytes()
    assert complaint(capsys, "predict", own, parts / "test", "--json", tmp_path / "r") == (
        2,
        f"--json {tmp_path / 'r'} would write over {own}, given as MODEL. Name another file.",
    )
    assert complaint(capsys, "predict", model, parts, "--json", tmp_path / "x", "--csv", tmp_path / "x.part") == (
        2,
        f"--json and --csv must be two files, got {tmp_path / 'x'} and {tmp_path / 'x.part'}.",
    )
    assert own.read_bytes() == before


def test_a_backbone_named_by_its_name_is_an_input_too(capsys, added, session_home, parts):
    place = next(session_home.rglob(f"{added}.onnx"))
    before = place.read_bytes()
    code, message = complaint(capsys, "fit", parts / "train", "--backbone", added, "-o", place)
    assert (code, message) == (2, f"--output {place} would write over {place}, given as --backbone. Name another file.")
    assert place.read_bytes() == before


def test_a_contact_sheet_in_a_folder_writes_over_no_picture(capsys, added, parts, tmp_path):
    shutil.copy(parts / "test" / "good" / "000.png", tmp_path / "audit.png")
    before = (tmp_path / "audit.png").read_bytes()
    code, message = complaint(capsys, "audit", tmp_path, "-o", tmp_path)
    assert (code, message) == (
        2,
        f"--output {tmp_path} would write over {tmp_path / 'audit.png'}, given as GOOD. Name another folder.",
    )
    assert (tmp_path / "audit.png").read_bytes() == before


def test_what_writes_over_its_own_input_by_intent_still_does(capsys, model, parts, tmp_path):
    own = shutil.copy(model, tmp_path / "m.trecall")
    picture = parts / "test" / "good" / "000.png"
    assert run(capsys, "update", own, "--add", picture)[0] == 0
    assert run(capsys, "update", own, "--undo")[0] == 0
    assert own.read_bytes() == model.read_bytes()
    for _ in range(2):
        assert run(capsys, "predict", model, picture, "--monitor", tmp_path / "line.monitor")[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")  # noqa: PTH110
def test_what_is_no_file_may_take_several_outputs(capsys, model, parts):
    line = ["predict", model, parts / "test" / "good", "--json", "/dev/null", "--csv", "/dev/null"]
    assert run(capsys, *line)[0] == 0
