"""predict --ray: what does not fit together is refused before anything starts; names are listed; parts are checked."""

import json

import pytest

from tests.cluster_ready import NEEDS_RAY
from totalrecall.cli import main
from totalrecall.errors import DataError, MissingExtraError, PictureError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "r.parquet"], "--out is only for --ray, got r.parquet"),
        (["--workers", "2"], "--workers is only for --ray, got 2"),
        (["--ray", "local"], "--ray needs a file for the results, got None. Write --out FILE.parquet"),
        (["--ray", "local", "-o", "-"], "--ray needs a file for the results, got -"),
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
    (folder / "plan.json").write_text(json.dumps({"asked": {}, "total": 0, "size": 1}))
    with pytest.raises(DataError, match=r"plan\.json is damaged"), opened_parts(target, {}, iter(()), workers=1):
        raise AssertionError("it holds no plan")
