"""backbones.published: the names, repositories and files of the hub, before anything is fetched."""

import pytest

from totalrecall.backbones import PUBLISHED, Remote
from totalrecall.backbones.dinov2 import DINOV2
from totalrecall.backbones.efficientnet_lite import LITES
from totalrecall.backbones.families import channels_of, check_architecture
from totalrecall.backbones.published import architecture_of, parse_remote
from totalrecall.backbones.resnet_layout import ARCHITECTURES
from totalrecall.errors import SettingError


def test_every_architecture_is_published_and_every_published_name_has_one():
    assert {architecture_of(name) for name in PUBLISHED} == {*ARCHITECTURES, *LITES, *DINOV2}
    for name in PUBLISHED:
        check_architecture(architecture_of(name))
        assert channels_of(architecture_of(name))
        assert PUBLISHED[name].size > 10_000_000
    assert [name for name, remote in PUBLISHED.items() if remote.tag == "tv_in1k"] == list(ARCHITECTURES)
    assert {remote.licence for remote in PUBLISHED.values()} == {"BSD-3-Clause", "Apache-2.0"}


def test_the_papers_weights_are_not_timms_default():
    assert PUBLISHED["wide_resnet50_2"].repository == "timm/wide_resnet50_2.tv_in1k"
    assert PUBLISHED["wide_resnet50_2.racm_in1k"].repository == "timm/wide_resnet50_2.racm_in1k"
    assert architecture_of("wide_resnet50_2.racm_in1k") == "wide_resnet50_2"


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 46_807_446), ("resnet50", 102_469_840), ("wide_resnet50_2", 275_835_296)]
)
def test_the_sizes_that_are_listed_are_those_of_the_hubs_files(name, size):
    assert abs(PUBLISHED[name].size - size) < 0.001 * size


@pytest.mark.parametrize(
    ("text", "repository", "revision", "file"),
    [
        ("hf://a/b", "a/b", "main", "model.safetensors"),
        ("a/b.c", "a/b.c", "main", "model.safetensors"),
        ("a/b@v2", "a/b", "v2", "model.safetensors"),
        ("hf://a/b@v2/sub/f.safetensors", "a/b", "v2", "sub/f.safetensors"),
        ("hf://a/b/f.safetensors@v2", "a/b", "v2", "f.safetensors"),
    ],
)
def test_files_of_the_hub_are_written_down(text, repository, revision, file):
    assert parse_remote(text) == Remote(repository, file, revision)


def test_what_is_a_path_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").touch()
    for path in ("w.safetensors", "folder/w.safetensors", "folder/weights", "/tmp/w", "./a/b", "a", "a/b/c", "a/w.pth"):
        assert parse_remote(path) is None


@pytest.mark.parametrize("text", ["hf://a", "hf://", "hf://a/../b", "hf://a/b@v2/f@v3", "hf://a/b c"])
def test_an_address_that_is_none_is_refused_with_the_form(text):
    with pytest.raises(SettingError, match=r"^weights must be a safetensors file, or on the hub OWNER/REPO, hf://"):
        parse_remote(text)
