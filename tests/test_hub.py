"""Published weights are fetched from a hub, checked and kept; what fails is said in one line with what to do about it.

The hub is a stand-in on this machine (`hub_server`).
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from tests.hub_server import COMMIT, HubServer
from tests.resnet_forward import random_weights
from totalrecall import backbones
from totalrecall.backbones import PUBLISHED, hub
from totalrecall.cli import main
from totalrecall.errors import BackboneError, MissingExtraError, SettingError

FILE = "timm/resnet18.tv_in1k/model.safetensors"


@pytest.fixture(scope="module")
def weights():
    """A ResNet-18 up to layer1 as a safetensors file, and its hash."""
    data = save(random_weights("resnet18", stages=1))
    return data, hashlib.sha256(data).hexdigest()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A per-user folder and a Hugging Face cache, both empty; the library reads its environment when it is imported."""
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_PAUSE", 0.0)
    yield tmp_path
    huggingface_hub.close_session()


@pytest.fixture
def server(places, weights, monkeypatch):
    """A hub that has a ResNet-18, whose hash is the one that is known."""
    made = HubServer()
    made.files[FILE] = weights[0]
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setitem(PUBLISHED, "resnet18", replace(PUBLISHED["resnet18"], sha256=weights[1]))
    yield made
    made.close()


def blobs(places):
    return places / "hf" / "hub" / "models--timm--resnet18.tv_in1k" / "blobs"


def partial(places, weights):
    return blobs(places) / f"{weights[1]}.totalrecall.incomplete"


def refusal(name="resnet18", **options):
    with pytest.raises(BackboneError) as caught:
        backbones.add(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------- fetching


def test_a_published_name_is_fetched_built_and_kept(server, places, weights, capsys):
    (places / "w.safetensors").write_bytes(weights[0])
    loaded = backbones.load("resnet18")
    assert loaded.source == f"hf://timm/resnet18.tv_in1k@{COMMIT}/model.safetensors, sha256 {weights[1]}"
    assert (loaded.licence, loaded.architecture) == ("BSD-3-Clause", "resnet18, torchvision form")
    assert loaded.to_header()["source"] == loaded.source  # so it is in every model
    by_hand = backbones.add("resnet18", places / "w.safetensors", source=loaded.source, licence=loaded.licence)
    assert by_hand.sha256 == loaded.sha256
    size = f"{len(weights[0]) / 1e6:.1f} MB"
    assert capsys.readouterr().err == (
        f"Fetching hf://timm/resnet18.tv_in1k@main/model.safetensors ({size}) from {server.url}\n"
    )


def test_what_is_kept_needs_no_network(server, places):
    first = backbones.load("resnet18")
    count = len(server.requests)
    server.status = 500
    assert backbones.load("resnet18") == first
    (places / "home" / "backbones" / "resnet18.onnx").unlink()
    assert backbones.load("resnet18") == first  # from the Hugging Face cache
    assert len(server.requests) == count


def test_the_cache_is_as_its_other_users_expect_it(server, places, weights):
    backbones.load("resnet18")
    found = huggingface_hub.try_to_load_from_cache("timm/resnet18.tv_in1k", "model.safetensors")
    assert Path(found).read_bytes() == weights[0]
    assert [path.name for path in blobs(places).iterdir()] == [weights[1]]


def test_what_another_program_fetched_is_used(server, places, weights):
    huggingface_hub.hf_hub_download("timm/resnet18.tv_in1k", "model.safetensors", endpoint=server.url)
    server.status = 500
    assert backbones.load("resnet18").source.endswith(weights[1])


def test_a_token_is_shown_to_the_hub_alone(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    backbones.load("resnet18")
    shown = {path.startswith("/bytes/"): "hf_secret" in str(headers) for _, path, headers in server.requests}
    assert shown == {False: True, True: False}


def test_any_repository_and_revision_can_be_named(server, weights):
    server.files["someone/mine/sub/w.safetensors"] = weights[0]
    added = backbones.add("resnet18", "hf://someone/mine@v2/sub/w.safetensors", save_as="mine", licence="ours")
    assert added.source == f"hf://someone/mine@{COMMIT}/sub/w.safetensors, sha256 {weights[1]}"
    assert (added.name, added.licence) == ("mine", "ours")
    assert backbones.load("mine") == added


def test_a_file_brought_by_hand_is_recognised_by_its_hash(server, places, weights):
    (places / "w.safetensors").write_bytes(weights[0])
    added = backbones.add("resnet18", str(places / "w.safetensors"))
    assert added.source == f"hf://timm/resnet18.tv_in1k@main/model.safetensors, sha256 {weights[1]}"
    assert added.licence == "BSD-3-Clause"
    other = save(random_weights("resnet18", stages=1, seed=1))
    (places / "w.safetensors").write_bytes(other)
    assert backbones.add("resnet18", places / "w.safetensors").source == "weights file w.safetensors"
    assert server.requests == []


def test_two_at_once_fetch_once(server):
    huggingface_hub.get_session()  # in version 1, two threads that make it at once leave one open
    threads = [threading.Thread(target=backbones.load, args=("resnet18",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.gets() == [None]


# ---------------------------------------------------------------------- what breaks off


def test_a_connection_that_breaks_is_gone_on_with(server, weights):
    server.cuts = [100_000, 50_000]
    assert backbones.load("resnet18").source.endswith(weights[1])
    assert server.gets() == [None, "bytes=100000-", "bytes=150000-"]


def test_a_run_that_was_stopped_is_gone_on_with_by_the_next(server, places, weights, capsys):
    server.cuts = [200_000] + [0] * 4
    size = f"{len(weights[0]) / 1e6:.1f} MB"
    assert f"with 0.2 MB of {size} here; the same command continues from there. By hand: " in refusal()
    assert partial(places, weights).stat().st_size == 200_000
    server.requests.clear()
    assert backbones.load("resnet18").source.endswith(weights[1])
    assert server.gets() == ["bytes=200000-"]
    assert f"({size}, going on at 0.2 MB)" in capsys.readouterr().err
    assert not partial(places, weights).exists()


def test_an_interrupted_run_keeps_what_it_has(server, places, weights, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub.time, "sleep", interrupt)
    server.cuts = [120_000]
    with pytest.raises(KeyboardInterrupt):
        backbones.load("resnet18")
    assert partial(places, weights).read_bytes() == weights[0][:120_000]


def test_a_server_that_begins_again_is_followed(server, weights):
    server.cuts, server.ignores_range = [100_000], True
    assert backbones.load("resnet18").source.endswith(weights[1])
    assert server.gets() == [None, "bytes=100000-"]


def test_what_arrives_damaged_is_thrown_away(server, places, weights):
    server.flips_a_bit = True
    damaged = hashlib.sha256(weights[0][:-1] + bytes([weights[0][-1] ^ 1])).hexdigest()
    assert f"what arrived is damaged (SHA-256 {damaged[:12]}, expected {weights[1][:12]}); run the com" in refusal()
    assert list(blobs(places).iterdir()) == []
    assert not (places / "home").exists()
    server.flips_a_bit = False
    assert backbones.load("resnet18").source.endswith(weights[1])


def test_a_cached_file_that_was_damaged_since_is_named(server, places, weights):
    backbones.load("resnet18")
    (places / "home" / "backbones" / "resnet18.onnx").unlink()
    blob = blobs(places) / weights[1]
    blob.write_bytes(weights[0][:-1] + b"\0\0")
    assert f"the file {blob} is damaged (SHA-256 " in refusal()
    assert f"the file {blob} is damaged (SHA-256 " in refusal(
        weights="timm/resnet18.tv_in1k"
    )  # its hash not insisted on


def test_other_weights_than_those_that_are_known_are_refused_before_they_are_fetched(server, weights, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "resnet18", replace(PUBLISHED["resnet18"], sha256="f" * 64))
    message = refusal()
    assert f"the hub now has another file there (SHA-256 {weights[1][:12]}, expected ffffffffffff)" in message
    assert server.gets() == []
    assert backbones.add("resnet18", "hf://timm/resnet18.tv_in1k").licence == "BSD-3-Clause"  # as the message says


def test_weights_of_another_architecture_are_refused_after_fetching(server, weights):
    server.files["timm/resnet34.tv_in1k/model.safetensors"] = save(random_weights("resnet50", stages=1))
    assert "model.safetensors are not of resnet34: they look like resnet50 or " in refusal("resnet34")


# ---------------------------------------------------------------------- what does not answer


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (401, {}, "the hub refuses it (401): the repository is private, gated or not there; accept its conditions at "),
        (403, {"X-Error-Code": "GatedRepo"}, "the hub refuses it (403): "),
        (404, {"X-Error-Code": "EntryNotFound"}, "the hub has no such repository, revision or file (404). "),
        (404, {"X-Error-Code": "RevisionNotFound"}, "the hub has no such repository, revision or file (404). "),
        (407, {}, "the proxy wants a name and a password (407); write them into HTTPS_PROXY. "),
        (418, {}, "the hub answers 418. "),
        (429, {}, "the hub has had too many requests from here (429); wait some minutes, or set HF_TOKEN. "),
        (503, {}, "the hub itself has a problem (503); run the command again later. "),
        (200, {}, "is no hub (a proxy's login page? a wrong HF_ENDPOINT?). "),
    ],
)
def test_an_answer_that_is_no_file_is_said_in_one_line_with_what_to_do(server, places, status, headers, reason):
    server.status, server.status_headers = status, headers
    message = refusal()
    assert message.startswith("Cannot fetch hf://timm/resnet18.tv_in1k@main/model.safetensors: ")
    assert reason in message
    assert message.endswith(
        f"By hand: download {server.url}/timm/resnet18.tv_in1k/resolve/main/model.safetensors where there is a "
        "network, and run: totalrecall backbones add resnet18 --weights model.safetensors (or copy the folder "
        f"models--timm--resnet18.tv_in1k of another machine's Hugging Face cache into {places / 'hf' / 'hub'})"
    )


def test_the_command_for_the_file_brought_by_hand_is_the_one_that_was_typed(server):
    server.status = 500
    message = refusal("wide_resnet50_2.racm_in1k", save_as="wide")
    command = "totalrecall backbones add wide_resnet50_2.racm_in1k --weights model.safetensors --save-as wide"
    assert f"run: {command} (or copy" in message


def test_offline_mode_is_honoured(server, monkeypatch, places):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"HF_HUB_OFFLINE is set, and the file is not in {places / 'hf' / 'hub'}. By hand: " in refusal()
    assert server.requests == []


def test_no_network_is_said(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert "http://127.0.0.1:9 cannot be reached (" in refusal()


def test_a_hub_that_says_nothing_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    server.stalls = "/"
    assert f"{server.url} did not answer within " in refusal()


def test_bytes_that_do_not_come_are_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.stalls = "/bytes/"
    assert f"{server.url} did not answer within 0.1 s (HF_HUB_DOWNLOAD_TIMEOUT)" in refusal()
    assert server.gets() == [None] * 5


def test_a_proxy_is_used_and_named_when_it_fails(server, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", server.url)
    huggingface_hub.close_session()
    server.status = 407
    assert "the proxy wants a name and a password (407)" in refusal()
    assert server.requests[0][2]["Host"] == "hub.invalid"
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("https_proxy", server.url)
    huggingface_hub.close_session()
    assert "the proxy refuses (" in refusal()  # it cannot CONNECT


def test_a_full_disk_is_found_before_and_during_the_download(server, places, monkeypatch):
    usage = shutil.disk_usage(places)
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=10))
    assert "has 0.0 MB free, 0.3 MB are needed; set HF_HOME to another disk" in refusal()
    assert server.gets() == []
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))

    def full(remote, partial, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "_receive", full)
    assert f"the disk of {places / 'hf' / 'hub'} is full; free some space or set HF_HOME to another disk" in refusal()


def test_a_cache_that_cannot_be_written_is_named(server, places, monkeypatch):
    (places / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(places / "file"))
    assert "Not a directory: " in refusal()


# ---------------------------------------------------------------------- names, extras, commands


def test_a_name_that_is_not_known_is_answered_with_those_that_are_and_asks_nobody(server):
    with pytest.raises(BackboneError, match=r"^No backbone is called 'wide_resnet50'\. .*, wide_resnet50_2, "):
        backbones.load("wide_resnet50")
    with pytest.raises(SettingError, match=r"^No architecture is called 'wide_resnet50'\. Choose one of .*, wide_res"):
        backbones.add("wide_resnet50")
    assert server.requests == []


@pytest.mark.parametrize("module", [None, type(sys)("huggingface_hub")], ids=["none", "before 1.0"])
def test_without_the_library_the_message_installs_it_or_does_without(server, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    with pytest.raises(MissingExtraError) as caught:
        backbones.load("resnet18")
    assert str(caught.value) == (
        "Weights of the hub are fetched with huggingface_hub 1 or later, which is not installed. "
        'Run: pip install "huggingface_hub>=1.0" "onnx>=1.16". Or by hand: download '
        f"{server.url}/timm/resnet18.tv_in1k/resolve/main/model.safetensors where there is a network, and run: "
        "totalrecall backbones add resnet18 --weights model.safetensors"
    )


def test_without_onnx_the_message_installs_it(monkeypatch, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(save(random_weights("resnet18", stages=1)))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'needs onnx, .* Run: pip install "onnx>=1.16"$'):
        backbones.add("resnet18", tmp_path / "w.safetensors", save_as="unbuilt")


def test_the_list_shows_what_can_be_fetched_until_it_is_here(server, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["backbones", "list"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("wide_resnet50_2 "))
    assert line.split() == [
        *("wide_resnet50_2", "1", "(256)", "2", "(512)", "3", "(1024)", "4", "(2048)", "276", "MB"),
        *("hub,", "tv_in1k", "BSD-3-Clause"),
    ]
    assert main(["backbones", "add", "resnet18"]) == 0
    capsys.readouterr()
    assert main(["backbones", "list", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "resnet18" in [entry["name"] for entry in listed["backbones"]]
    assert [entry["name"] for entry in listed["published"]] == [name for name in PUBLISHED if name != "resnet18"]
    assert listed["published"][0]["url"] == f"{server.url}/timm/resnet34.tv_in1k/resolve/main/model.safetensors"


def environment(places, server, **more):
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TOTALRECALL_HOME": str(places / "home"),
        "HF_HOME": str(places / "hf"),
        "HF_ENDPOINT": server.url,
        **more,
    }


def test_a_command_of_its_own_honours_the_environment(server, places):
    """A process of its own, told by variables alone; of the real ResNet-101 no hash is known, so any will do."""
    server.files["timm/resnet101.tv_in1k/model.safetensors"] = save(random_weights("resnet101", stages=1))
    command = [sys.executable, "-m", "totalrecall", "backbones", "add", "resnet101"]
    offline = environment(places, server, HF_HUB_OFFLINE="1")
    done = subprocess.run(command, capture_output=True, text=True, env=offline, check=False)
    assert (done.returncode, done.stdout, server.requests) == (3, "", [])
    assert len(done.stderr.splitlines()) == 1
    assert f"HF_HUB_OFFLINE is set, and the file is not in {places / 'hf' / 'hub'}" in done.stderr
    done = subprocess.run(command, capture_output=True, text=True, env=environment(places, server), check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("Fetching hf://timm/resnet101.tv_in1k@main/model.safetensors (")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.startswith("Added resnet101: layers 1, sha256 ")
    assert (places / "hf" / "hub" / "models--timm--resnet101.tv_in1k").is_dir()
