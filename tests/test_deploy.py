"""docs/deploy is true: its commands parse, its extras exist, its paths and limits are those of program and docs."""

import contextlib
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.station_access import make_certificate
from totalrecall.cli import build_parser
from totalrecall.station import serving
from totalrecall.station.quality.fitting import MODELS

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
UNIT = (DEPLOY / "totalrecall.service").read_text("utf-8")
CONTAINER = (DEPLOY / "Containerfile").read_text("utf-8")
SITE = (DEPLOY / "nginx.conf").read_text("utf-8")
PAGE = (ROOT / "docs" / "howto" / "station-install.md").read_text("utf-8")
ALL = {"unit": UNIT, "container": CONTAINER, "nginx": SITE, "page": PAGE}


def settings(name, text=UNIT):
    """Return the values that a unit gives to a setting, comments aside."""
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def exec_start():
    shell, option, command = shlex.split(settings("ExecStart")[0])
    assert (shell, option) == ("/bin/sh", "-c")
    return shlex.split(command.removeprefix("exec "))


def entry_point():
    shell, option, command, name = json.loads(re.search(r"^ENTRYPOINT (.*)$", CONTAINER, re.MULTILINE)[1])
    assert (shell, option, name) == ("/bin/sh", "-c", "serve")
    return shlex.split(command.removeprefix("exec "))


def joined(text):
    """Return lines, each with what a backslash continues, without the signs of comments and prompts."""
    bare = re.sub(r"^(#|\$) ", "", text.replace("\n#\n", "\n\n"), flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", "", bare).splitlines()


def commands():
    """Return the arguments of every `totalrecall` that the files and the page call, and where each stands."""
    yield "unit", exec_start()[1:-1]
    yield "container", entry_point()[1:-1]
    for name, text in ALL.items():
        for line in joined(text):
            for option in re.findall(r"OPTIONS=([^`\n]+)", line):
                yield name, ["serve", "part.trecall", *shlex.split(option)]
            if match := re.search(r"(?:/bin/totalrecall|--entrypoint totalrecall totalrecall)\s+(station .*)", line):
                yield name, shlex.split(match[1])
    yield "nginx", ["serve", "part.trecall", *re.search(r"started with (--.*)", SITE)[1].split()]


def test_every_command_and_every_option_is_one_of_the_program():
    parser, seen = build_parser(), []
    for name, words in commands():
        parser.parse_args(words)
        seen.append(name)
    assert set(seen) == set(ALL)
    assert len(seen) > 15


def test_an_option_that_the_program_lacks_would_be_noticed(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([*exec_start()[1:-1], "--proxies", "127.0.0.1"])
    assert "--proxies" in capsys.readouterr().err


def test_every_extra_is_one_of_the_package(monkeypatch):
    pytest.importorskip("setuptools")
    from setuptools.config.pyprojecttoml import load_file

    monkeypatch.chdir(ROOT)
    known = set(load_file("pyproject.toml")["project"]["optional-dependencies"])
    for name in ("unit", "container", "page"):
        named = {extra for group in re.findall(r"totalrecall\[([a-z0-9,]+)\]", ALL[name]) for extra in group.split(",")}
        assert "station" in named
        assert named <= known


def test_the_unit_serves_the_models_of_the_folder_that_systemd_makes_for_it():
    program, _, models, option, folder, *_ = exec_start()
    assert (option, folder) == ("--folder", f"/var/lib/{settings('StateDirectory')[0]}")
    assert models == f"{folder}/{MODELS}/*.trecall"
    assert f"TOTALRECALL_HOME=/var/cache/{settings('CacheDirectory')[0]}" in settings("Environment")[0]
    assert program.startswith("/opt/totalrecall/bin/")
    assert settings("User") == ["totalrecall"]
    assert settings("Type") == ["notify"]  # as `totalrecall.station.serving` tells it


def test_the_container_serves_the_models_of_its_volume():
    _, _, models, option, folder, *_ = entry_point()
    assert (option, folder) == ("--folder", re.search(r"^VOLUME (\S+)$", CONTAINER, re.MULTILINE)[1])
    assert models == f"{folder}/{MODELS}/*.trecall"
    assert f"-t {folder}/{MODELS} /part.trecall" in CONTAINER
    assert f"install -d -o station -g station -m 0700 {folder}" in CONTAINER


def test_the_page_has_the_commands_at_the_head_of_the_files():
    page = [" ".join(line.split()).replace("NAME", "anna") for line in joined(PAGE)]
    for head in (UNIT[: UNIT.index("[Unit]")], CONTAINER[: CONTAINER.index("FROM")]):
        lines = [" ".join(line.split()).replace("NAME", "anna") for line in joined(head)]
        shown = [line for line in lines if re.match(r"(useradd|python3|install|systemctl|podman) ", line)]
        assert len(shown) >= 4
        assert [line for line in shown if line not in page] == []
    for path in (settings("EnvironmentFile")[0].removeprefix("-"), "/etc/nginx/conf.d/totalrecall.conf"):
        assert path in PAGE


def test_what_ends_a_station_gives_it_the_time_it_takes():
    waits = {*settings("TimeoutStopSec"), *re.findall(r"--stop-timeout (\d+)", CONTAINER + PAGE)}
    assert waits == {"90"}
    assert serving._GRACE < 90
    assert settings("KillSignal") == ["SIGTERM"]
    assert settings("SuccessExitStatus") == [str(128 + signal.SIGTERM)]  # stopped while it starts


def test_the_limits_of_nginx_are_those_of_the_station():
    args = build_parser().parse_args(["serve", "part.trecall"])
    assert re.search(r"client_max_body_size (\d+)m;", SITE)[1] == str(args.max_body >> 20)
    assert re.search(r"client_body_timeout +(\d+)s;", SITE)[1] == f"{args.timeout:g}"
    assert f"proxy_pass http://{args.host}:{args.port};" in SITE
    assert f"EXPOSE {args.port}" in CONTAINER


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit_and_little_that_it_may_do(tmp_path):
    unit = shutil.copy(DEPLOY / "totalrecall.service", tmp_path)
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "totalrecall.service" in line] == []
    limit = ["--offline=true", "--threshold=20"]  # of 100
    assert (
        subprocess.run(["systemd-analyze", "security", *limit, unit], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(shutil.which("nginx", path=f"{os.environ.get('PATH')}:/usr/sbin") is None, reason="no nginx here")
def test_nginx_takes_the_site(tmp_path):
    certificate, key = tmp_path / "station.pem", tmp_path / "station.key"
    make_certificate(certificate, key)
    site = SITE.replace("/etc/ssl/totalrecall", str(tmp_path))
    assert site.count(str(tmp_path)) == 2
    head = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off;\n"
    (tmp_path / "nginx.conf").write_text(head + site + "}\n")
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH')}:/usr/sbin")
    done = subprocess.run([nginx, "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class _Ready(http.server.BaseHTTPRequestHandler):
    """Answers as a station that can judge, or that cannot."""

    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_):
        """Print nothing."""


@contextlib.contextmanager
def answering(status, tls=None):
    """A server at a port of its own."""
    handler = type("Handler", (_Ready,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def check_health(port):
    text = re.search(r"^HEALTHCHECK .*? CMD (\[.*?\])$", CONTAINER.replace("\\\n", ""), re.MULTILINE)[1]
    python, option, program = json.loads(text)
    assert (python, option) == ("python", "-c")
    assert program.count(":8000/") == 2
    command = [sys.executable, "-c", program.replace(":8000/", f":{port}/")]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_health_check_knows_a_station_that_can_judge_with_and_without_tls(tmp_path):
    tls = tmp_path / "station.pem", tmp_path / "station.key"
    make_certificate(*tls)
    for certificate in (None, tls):
        with answering(200, certificate) as port:
            assert check_health(port) == 0
        assert check_health(port) == 1
        with answering(503, certificate) as port:
            assert check_health(port) == 1
