"""predict --ray: what does not fit together is refused before anything starts; names are listed; parts are checked."""

import argparse
import json
import os
import re

import pytest

from tests.cluster_ready import NEEDS_RAY
from totalrecall.cli import main
from totalrecall.cli.spread_fit import kept_for
from totalrecall.errors import DataError, MissingExtraError, PictureError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "r.parquet"], "--out is only for --ray, got r.parquet"),
        (["--workers", "2"], "--workers is only for --ray, got 2"),
        (["--ray", "local"], "--ray needs a file for the results, got None. Write --out FILE.parquet"),
        (["--ray", "local", "-o", "-"], "--ray needs a file for the results, got -"),
        (["--ray", "local", "-o", "/dev/null"], "--ray needs a file for the results, got /dev/null"),
        (["--ray", "local", "-o", "r.parquet", "--json", "r.json"], "--json does not work with --ray"),
        (["--ray", "local", "-o", "r.parquet", "--heatmaps", "maps"], "--heatmaps does not work with --ray"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(words, message, capsys):
    assert main(["predict", "m.trecall", "pictures", *words]) == 2
    assert message in capsys.readouterr().err


@NEEDS_RAY
def test_a_bad_address_is_one_line_and_exit_code_2_and_one_where_nothing_answers_1(model, pictures, tmp_path, capsys):
    words = ["predict", str(model), str(pictures[0]), "-o", str(tmp_path / "r.parquet"), "--ray"]
    assert main([*words, "nowhere"]) == 2
    assert "--ray must be HOST:PORT of a cluster, auto" in capsys.readouterr().err
    assert main([*words, "127.0.0.1:1"]) == 1
    assert "No Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@NEEDS_RAY
def test_a_store_is_listed_folder_by_folder_without_hidden_files_and_other_kinds():
    import fsspec

    from totalrecall.cluster.listing import list_pictures, read_remote

    store = fsspec.filesystem("memory")
    for name in ("b.png", "a.JPG", ".c.png", "d.txt", "deep/e.png", ".hidden/f.png"):
        store.pipe(f"/listed/{name}", name.encode())
    expected = ["memory://listed/a.JPG", "memory://listed/b.png", "memory://listed/deep/e.png"]
    plain = [name.replace("memory:///", "memory://") for name in list_pictures(["memory://listed"])]
    assert plain == expected
    twice = list(list_pictures(["memory://listed/deep", "memory://listed"]))
    assert len(twice) == len(set(twice)) == 3
    assert read_remote("memory://listed/deep/e.png") == b"deep/e.png"
    with pytest.raises(PictureError, match=r"memory://listed/g\.png does not exist\."):
        read_remote("memory://listed/g.png")
    with pytest.raises(DataError, match="holds no picture"):
        list(list_pictures(["memory://listed/*.bmp"]))


@NEEDS_RAY
def test_an_address_of_no_known_store_or_of_one_whose_package_is_missing_is_named():
    from totalrecall.cluster.listing import list_pictures

    with pytest.raises(DataError, match="nothing://here cannot be opened: Protocol not known: nothing"):
        list(list_pictures(["nothing://here"]))
    with pytest.raises(MissingExtraError, match=r"oci://here cannot be opened: .*pip install"):
        list(list_pictures(["oci://here"]))


def judged(name, verdict):
    return {"path": name, "score": 1.5, "threshold": 1.0, "is_anomalous": verdict, "p_value": 0.5, "milliseconds": 1.0}


@NEEDS_RAY
def test_parts_survive_go_on_and_become_one_file_in_the_order_of_the_list(tmp_path):
    from tests.cluster_ready import rows
    from totalrecall.cluster.parts import opened_parts, parquet_part

    names = [*(f"{at}.png" for at in range(17)), "line\nbreak.png", "byte\udcff.png"]
    target = tmp_path / "r.parquet"
    with opened_parts(target, {"model": "m"}, iter(names), workers=1) as parts:
        blocks = list(parts.left())
        assert [name for block in blocks for name in block.names] == names
        assert {len(block.names) for block in blocks[:-1]} == {2}
        with (
            pytest.raises(DataError, match="is being updated by another program"),
            opened_parts(target, {"model": "m"}, iter(()), workers=1),
        ):
            raise AssertionError("two may not work there")
        for block in blocks[3:]:
            parts.add(block.index, parquet_part([judged(name, False) for name in block.names]))
    (tmp_path / "r.parquet.parts" / ".part-000000001.parquet.x.part").write_bytes(b"half")
    with opened_parts(target, {"model": "m"}, iter(()), workers=7) as parts:
        assert parts.done == len(names) - 6
        left = list(parts.left())
        assert left == blocks[:3]
        for block in left:
            parts.add(block.index, parquet_part([{"path": name, "error": "broken"} for name in block.names]))
        assert parts.join(target) == {"good": len(names) - 6, "unreadable": 6}
    table = rows(target)
    assert [row["path"] for row in table[:-1]] == names[:-1]
    assert table[-1]["path"] == r"byte\udcff.png"
    assert [path.name for path in tmp_path.iterdir()] == ["r.parquet"]


@NEEDS_RAY
def test_a_damaged_plan_or_part_is_named_and_a_failed_list_leaves_nothing(tmp_path):
    from totalrecall.cluster.parts import opened_parts

    def failing():
        yield "a.png"
        raise DataError("the list ended")

    target, folder = tmp_path / "r.parquet", tmp_path / "r.parquet.parts"
    with pytest.raises(DataError, match="the list ended"), opened_parts(target, {}, failing(), workers=1):
        raise AssertionError("there is no list")
    assert list(tmp_path.iterdir()) == []
    with opened_parts(target, {}, iter(["a.png"]), workers=1) as parts:
        parts.add(0, b"no Parquet")
        with pytest.raises(DataError, match=r"part-000000000\.parquet is damaged"):
            parts.join(target)
    plan = {"command": "predict", "asked": {}, "total": 0, "size": 1, "list": ""}
    (folder / "plan.json").write_text(json.dumps(plan))
    with (
        pytest.raises(DataError, match=r"damaged plan\.json \(its values"),
        opened_parts(target, {}, iter(()), workers=1),
    ):
        raise AssertionError("it holds no plan")


@NEEDS_RAY
def test_what_somebody_changed_in_the_folder_is_named_and_no_picture_is_twice_or_missing(tmp_path):
    from tests.cluster_ready import rows
    from totalrecall.cluster.parts import check_parts, opened_parts, parquet_part

    target, folder = tmp_path / "r.parquet", tmp_path / "r.parquet.parts"
    names = [f"{at}.png" for at in range(8)]

    def part(block):
        return parquet_part([judged(name, False) for name in block.names])

    with opened_parts(target, {}, iter(names), workers=1) as parts:
        blocks = list(parts.left())
        parts.add(0, part(blocks[0]))
    for name in ("part-000000099.parquet", "part-copy.parquet", "part-1.parquet"):
        (folder / name).write_bytes(part(blocks[0]))

    lines = (folder / "pictures.jsonl").read_text()
    for other in (lines.replace("7.png", "8.png"), lines[:20], lines + lines, ""):
        (folder / "pictures.jsonl").write_text(other)
        with pytest.raises(DataError, match=r"pictures\.jsonl is not the list that the run began with\)\. Name"):
            check_parts(target, {})
    (folder / "pictures.jsonl").unlink()
    with pytest.raises(DataError, match=r"pictures\.jsonl: No such file or directory\)"):
        check_parts(target, {})
    (folder / "pictures.jsonl").write_text(lines)
    plan = (folder / "plan.json").read_text()
    for before, now in (('"total": 8', '"total": 7'), ('"size": 1', '"size": 99999999999999999999')):
        (folder / "plan.json").write_text(plan.replace(before, now))
        with pytest.raises(DataError, match=r"damaged plan\.json \(its numbers do not fit its list\)"):
            check_parts(target, {})
    (folder / "plan.json").write_text(plan)

    with opened_parts(target, {}, iter(()), workers=1) as parts:
        assert parts.done == 1
        left = list(parts.left())
        assert left == blocks[1:]
        for block in left:
            parts.add(block.index, part(block))
        wrong = folder / "part-000000003.parquet"
        wrong.write_bytes(part(blocks[0]))
        with pytest.raises(DataError, match=r"part-000000003\.parquet is damaged \(it holds other pictures than those"):
            parts.join(target)
        wrong.unlink()
        wrong.mkdir()
        with pytest.raises(DataError, match=r"part-000000003\.parquet is damaged \(it is a folder"):
            parts.join(target)
        wrong.rmdir()
        parts.add(3, part(blocks[3]))
        assert parts.join(target) == {"good": 8}
    assert [row["path"] for row in rows(target)] == names


def lie_in(folder, files):
    """Make a folder of such files, their text by name."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def held(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


LOCKED = {command: {"lock": f"totalrecall {command} --ray\n"} for command in ("fit", "predict")}
FOREIGN = [
    ({"thesis.txt": "years of work"}, r"files of another origin \('thesis\.txt'\)"),
    ({"lock": "", "thesis.txt": "years"}, r"files of another command \('' in the file lock\)"),
    ({"lock": "", "plan.json": '{"asked": {}}'}, "files of another command"),
    ({**LOCKED["predict"], "thesis.txt": "years"}, r"files of another origin \('thesis\.txt'\)"),
    (LOCKED["fit"], "files of another command \\('totalrecall fit --ray' in the file lock"),
    ({**LOCKED["predict"], "plan.json": "{"}, r"a damaged plan\.json \(it is no JSON\)"),
    ({**LOCKED["predict"], "plan.json": "[]"}, r"a damaged plan\.json \(it holds no names\)"),
    ({**LOCKED["predict"], "plan.json": '{"command": "predict"}'}, r"a damaged plan\.json \('asked' is missing\)"),
    (
        {**LOCKED["predict"], "plan.json": '{"command": "fit", "asked": {}, "total": 1, "size": 1, "list": ""}'},
        r"a plan\.json of 'fit'",
    ),
]


@pytest.fixture
def no_cluster(monkeypatch):
    def started(*_, **__):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("totalrecall.cluster.connection.connected", started)


@pytest.mark.parametrize(("files", "got"), FOREIGN)
def test_a_folder_of_parts_that_is_not_its_own_is_refused_before_ray_starts_and_left_as_it_is(
    files, got, model, pictures, tmp_path, capsys, no_cluster
):
    folder = tmp_path / "r.parquet.parts"
    lie_in(folder, files)
    words = ["predict", str(model), str(pictures[0]), "--ray", "local", "-o", str(tmp_path / "r.parquet")]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert re.search(rf"r\.parquet\.parts must be empty or hold what predict --ray has done so far, got {got}", err)
    assert err.endswith("Name another output, or move it away.\n")
    assert err.count("\n") == 1
    assert held(folder) == files


def test_another_commands_parts_are_refused_before_ray_starts(model, pictures, tmp_path, capsys, no_cluster):
    plan = '{"command": "predict", "asked": {"model": "m"}, "total": 1, "size": 1, "list": ""}'
    files = {**LOCKED["predict"], "plan.json": plan}
    lie_in(tmp_path / "r.parquet.parts", files)
    assert main(["predict", str(model), str(pictures[0]), "--ray", "local", "-o", str(tmp_path / "r.parquet")]) == 1
    assert "holds what another command did so far (model m, now" in capsys.readouterr().err
    assert held(tmp_path / "r.parquet.parts") == files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_fit_into_a_pipe_keeps_nothing_beside_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with kept_for(argparse.Namespace(ray="local", output=str(tmp_path / "pipe"))) as kept:
        assert kept is None
        assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@NEEDS_RAY
def test_a_run_removes_only_what_it_knows_and_neither_a_strangers_file_nor_the_folder_old(tmp_path):
    from totalrecall.cluster.parts import opened_parts, parquet_part

    target, folder, old = tmp_path / "r.parquet", tmp_path / "r.parquet.parts", tmp_path / "r.parquet.parts.old"
    lie_in(old, {"thesis.txt": "years"})
    lie_in(folder, {**LOCKED["predict"], "part-000000000.parquet": "of a run that was half taken away"})
    with opened_parts(target, {}, iter(["a.png"]), workers=1) as parts:
        assert parts.done == 0
        parts.add(0, parquet_part([judged("a.png", False)]))
        (folder / "thesis.txt").write_text("months")
        parts.join(target)
    assert held(folder) == {**LOCKED["predict"], "thesis.txt": "months"}
    assert held(old) == {"thesis.txt": "years"}
