"""Options of `totalrecall serve` that connect the station with a line: off unless asked, refused before it starts."""

import argparse
import importlib.util
import subprocess
import sys

import pytest

from totalrecall.cli.links import add_link_options, links_of, serial_reader
from totalrecall.errors import MissingExtraError, SettingError
from totalrecall.station.links.camera import Camera
from totalrecall.station.links.hot_folder import HotFolder
from totalrecall.station.links.mqtt import Mqtt
from totalrecall.station.links.opcua import OpcUa
from totalrecall.station.links.recipe_camera import RecipeCamera
from totalrecall.station.links.webhook import Webhook


def parsed(*words, models=("part.trecall",), folder="no-station"):
    parser = argparse.ArgumentParser()
    add_link_options(parser)
    parser.set_defaults(models=models, max_body=1000, insecure=False, folder=folder)
    return parser.parse_args([str(word) for word in words])


def refused(*words, **options):
    with pytest.raises(SettingError) as caught:
        links_of(parsed(*words, **options))
    return str(caught.value)


def test_everything_is_off_unless_asked():
    assert [type(link) for link in links_of(parsed())] == [RecipeCamera]  # which rests until a recipe names a camera
    assert serial_reader(parsed()) is None


def test_each_option_makes_its_link(tmp_path, monkeypatch):
    (tmp_path / "a=b").mkdir()
    (tmp_path / "secret").write_text("a secret of enough letters\n")
    words = ["--watch", tmp_path, "--watch", tmp_path / "a=b", "--camera", "0", "--webhook", "https://host/"]
    words += ["--webhook-secret", tmp_path / "secret", "--mqtt", "mqtt://host", "--opcua", "127.0.0.1:4840"]
    links = links_of(parsed(*words))
    assert [type(link) for link in links] == [HotFolder, HotFolder, Camera, RecipeCamera, Webhook, Mqtt, OpcUa]
    assert len({link.name for link in links}) == len(links)
    assert [link.name for link in links if link.is_output] == ["webhook", "mqtt", "opcua"]
    assert serial_reader(parsed("--serial-from-code")) is not None


def test_with_several_models_the_one_that_judges_is_named(tmp_path):
    models = ("a/part.trecall", "other.trecall")
    link, _ = links_of(parsed("--watch", f"other={tmp_path}", models=models))
    assert link._model == "other"
    assert f"--watch part={tmp_path}" in refused("--watch", tmp_path, models=models)
    assert "must name the model" in refused("--camera", "missing=0", models=models)
    (tmp_path / "recipes.toml").touch()  # then the product's recipe says it
    link, _ = links_of(parsed("--watch", tmp_path, models=models, folder=tmp_path))
    assert link._model is None


def test_what_is_wrong_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("TOTALRECALL_WEBHOOK_SECRET", raising=False)
    assert "needs a secret" in refused("--webhook", "https://host/")
    monkeypatch.setenv("TOTALRECALL_WEBHOOK_SECRET", "x" * 16)
    assert "same address twice" in refused("--webhook", "https://host/", "--webhook", "https://host/")
    assert "is no folder" in refused("--watch", tmp_path / "missing")
    assert "from 0 to 86,400" in refused("--camera", "0", "--camera-interval", "nan")
    assert "may hold no +" in refused("--mqtt", "mqtt://host", models=("a+b.trecall",))
    assert "other machines" in refused("--opcua", "0.0.0.0:4840")
    (tmp_path / "empty").write_text("")
    assert "is empty" in refused("--webhook", "https://host/", "--webhook-secret", tmp_path / "empty")


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["--watch", "."], "watchfiles", "watch"),
        (["--mqtt", "mqtt://host"], "paho.mqtt", "mqtt"),
        (["--opcua", "127.0.0.1:4840"], "asyncua", "opcua"),
        (["--serial-from-code"], "zxingcpp", "codes"),
    ],
)
def test_a_missing_package_is_one_line_with_its_install_command(words, module, extra, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == module else original(name, *rest)
    )
    with pytest.raises(MissingExtraError) as caught:
        links_of(parsed(*words))
    assert str(caught.value) == f"{words[0]} needs more. Install it: pip install 'totalrecall[{extra}]'"


def test_the_options_import_nothing_heavy():
    code = "import sys, totalrecall.cli.links; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"asyncua", "paho", "watchfiles", "zxingcpp", "sqlalchemy", "cv2", "fastapi"}
    assert heavy.isdisjoint(done.stdout.split())
