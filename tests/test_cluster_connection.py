"""connection: what is wrong with a cluster is said in one line, before Ray is asked and after."""

import functools
import socket
import subprocess
import sys
import threading

import pytest

from tests.cluster_ready import NEEDS_RAY
from totalrecall.cluster.connection import connected, need_ray
from totalrecall.errors import ClusterError, MissingExtraError, SettingError


@pytest.mark.parametrize("address", ["somewhere", "ray://host:10001", ":6379", "host:port", "host:0", "host:70000", ""])
def test_what_is_no_address_is_refused_before_anything_starts(address):
    with (
        pytest.raises(SettingError, match=r"ray must be HOST:PORT of a cluster, auto for .*, or local, got"),
        connected(address),
    ):
        raise AssertionError("it was let in")


@pytest.mark.parametrize(("address", "cores"), [("local", 0), ("127.0.0.1:6379", 2)])
def test_cores_are_a_local_clusters_and_at_least_one(address, cores):
    with (
        pytest.raises(SettingError, match=f"cores must be at least 1.*got {cores} for {address}"),
        connected(address, cores=cores),
    ):
        raise AssertionError("it was let in")


def test_without_ray_the_message_holds_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'pip install "totalrecall\[cluster\]"'):
        need_ray()


@NEEDS_RAY
def test_an_address_where_nothing_listens_is_named_with_the_reason():
    with (
        pytest.raises(ClusterError, match=r"No Ray cluster answers at 127\.0\.0\.1:1 \(Connection refused\)"),
        connected("127.0.0.1:1"),
    ):
        raise AssertionError("it was let in")


@NEEDS_RAY
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is not Ray"),
        (b"", "what listens there is not Ray"),
        (None, "timed out"),
    ],
)
def test_a_server_that_is_no_head_of_ray_is_named_before_ray_waits_for_it(monkeypatch, answer, reason):
    monkeypatch.setattr("totalrecall.cluster.connection._ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = []

        def serve():
            taken.append(server.accept()[0])
            if answer is not None:
                taken[0].recv(100)
                taken[0].sendall(answer)
                taken[0].close()

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            pytest.raises(ClusterError, match=rf"No Ray cluster answers at 127\.0\.0\.1:{port} \({reason}\)\. Give"),
            connected(f"127.0.0.1:{port}"),
        ):
            raise AssertionError("it was let in")
        thread.join()
        taken[0].close()


@NEEDS_RAY
def test_names_that_are_no_unicode_do_not_reach_rays_list_of_jobs(monkeypatch):
    import ray._private.utils as utils

    monkeypatch.setattr(utils, "get_entrypoint_name", utils.get_entrypoint_name)  # it is put back afterwards
    monkeypatch.setattr(sys, "argv", ["totalrecall", "predict", "byte\udcff.png"])

    def init(**_):
        utils.get_entrypoint_name().encode()
        raise UnicodeEncodeError("utf-8", "/folder\udcff", 7, 8, "surrogates not allowed")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ClusterError, match=r"Ray cannot work in the folder .* is not UTF-8\."), connected("local"):
        raise AssertionError("it was let in")
    assert utils.get_entrypoint_name().endswith(r"totalrecall predict byte\udcff.png")


@NEEDS_RAY
def test_auto_where_no_cluster_runs_says_how_to_start_one(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(
        "ray._private.services.find_gcs_addresses", functools.cache(set)
    )  # other programs may run a cluster here
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    with pytest.raises(ClusterError) as raised, connected("auto"):
        raise AssertionError("it was let in")
    assert str(raised.value) == (
        "No Ray cluster runs on this machine. Start one with `ray start --head`, or give --ray local."
    )


SCRIPT = """
import signal
from totalrecall.cluster.connection import connected
signal.signal(signal.SIGTERM, print)
handler = signal.getsignal(signal.SIGTERM)
with connected("local", cores=1) as cluster:
    import ray
    assert signal.getsignal(signal.SIGTERM) is handler
    print(cluster.nodes, cluster.cores, ray.get(ray.remote(lambda: 7).remote()))
assert not ray.is_initialized()
assert signal.getsignal(signal.SIGTERM) is handler
"""


@NEEDS_RAY
@pytest.mark.slow
def test_a_local_cluster_computes_is_quiet_and_leaves_signals_alone():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1 7\n", "")
