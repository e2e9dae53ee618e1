"""The programs of `docs/howto/export.md` run without this package, and print the scores that it gives."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import pytest

from tests.parts import damaged, make, stripes
from totalrecall.export.build import build_graph

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "howto" / "export.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[number]


@pytest.fixture(scope="module")
def folder(tiny_backbone, tmp_path_factory):
    """A folder with a graph, and a good and a bad picture with the scores of the program."""
    folder = tmp_path_factory.mktemp("exported")
    detector = make(tiny_backbone, false_alarm_rate=0.1).fit([stripes(seed) for seed in range(12)])
    (folder / "part.onnx").write_bytes(build_graph(detector, model="").SerializeToString())
    judged = {}
    for name, picture in (("good", stripes(3)), ("bad", damaged(41))):
        for suffix in (".png", ".ppm"):
            cv2.imwrite(str(folder / f"{name}{suffix}"), picture[..., ::-1])
        judged[name] = detector.predict(picture)
    assert [result.is_anomalous for result in judged.values()] == [False, True]
    return folder, judged


@pytest.mark.parametrize("name", ["good", "bad"])
def test_thirty_lines_of_python_need_three_packages_and_give_the_same_score(folder, tmp_path, name):
    where, judged = folder
    program = block("python")
    assert len(program.splitlines()) <= 30
    assert set(re.findall(r"^(?:import|from) (\w+)", program, flags=re.MULTILINE)) <= {"cv2", "numpy", "onnxruntime"}
    shutil.copy(where / "part.onnx", tmp_path)
    shutil.copy(where / f"{name}.png", tmp_path / "part.png")
    alone = "import sys\nfor name in ('totalrecall', 'openvino', 'onnx'):\n    sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", alone + program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdict, score = re.match(r"part\.png: ([\w ]+), score ([\d.]+)", done.stdout).groups()
    assert verdict == judged[name].verdict
    assert float(score) == pytest.approx(judged[name].score, rel=1e-3)
    drawn = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_GRAYSCALE)
    assert drawn.shape == judged[name].anomaly_map.shape
    assert drawn.max() == 255


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and a C++ compiler")
def test_the_program_in_cpp_gives_the_same_score(folder, tmp_path):
    import openvino

    package = Path(openvino.__file__).parent / "cmake"
    if not (package / "OpenVINOConfig.cmake").is_file():
        pytest.skip("this OpenVINO has no C++ part")
    (tmp_path / "judge.cpp").write_text(block("cpp"))
    (tmp_path / "CMakeLists.txt").write_text(block("cmake"))
    for command in (
        ["cmake", "-S", ".", "-B", "build", f"-DOpenVINO_DIR={package}", "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", "build"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    check_program(tmp_path / "build" / "judge", folder, tmp_path)


def onnxruntime_headers():
    """The folder of the C++ headers: a release's, or Debian's."""
    places = (os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime")
    return next((place for place in places if (Path(place) / "onnxruntime_cxx_api.h").is_file()), None)


@pytest.mark.skipif(
    not (shutil.which("c++") and onnxruntime_headers()),
    reason="needs a C++ compiler and ONNXRUNTIME_INCLUDE=the folder of onnxruntime_cxx_api.h, or libonnxruntime-dev",
)
def test_the_program_in_cpp_with_onnx_runtime_gives_the_same_score(folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    libraries = [*(Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")]
    if not libraries:
        pytest.skip("this onnxruntime has no library for C++")
    (tmp_path / "judge.cpp").write_text(block("cpp", 1))
    (tmp_path / "libonnxruntime.so.1").symlink_to(libraries[0])  # the name that the program looks for
    command = ["c++", "-std=c++17", "-O2", "-Wall", "-Wextra", "judge.cpp", "-I", onnxruntime_headers()]
    command += ["libonnxruntime.so.1", f"-Wl,-rpath,{tmp_path}", "-o", "judge"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "judge.cpp" not in done.stderr  # no warning of its own
    check_program(tmp_path / "judge", folder, tmp_path)
    huge = tmp_path / "huge.ppm"
    huge.write_bytes(b"P6 99999999 99999999 255\n123")
    done = subprocess.run([str(tmp_path / "judge"), "part.onnx", str(huge)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "not a PPM of 8 bits\n")


def check_program(program, folder, tmp_path):
    """Assert that a program gives both pictures their scores, and refuses one that is cut off."""
    where, judged = folder
    for name, result in judged.items():
        command = [str(program), str(where / "part.onnx"), str(where / f"{name}.ppm")]
        done = subprocess.run(command, capture_output=True, text=True)
        verdict, score = done.stdout.rsplit(maxsplit=1)
        assert (verdict, done.returncode) == (result.verdict, 10 if result.is_anomalous else 0), done.stderr
        assert float(score) == pytest.approx(result.score, rel=1e-3)
    broken = tmp_path / "broken.ppm"
    broken.write_bytes(b"P6 10 10 255\n123")
    done = subprocess.run([*command[:2], str(broken)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "the picture is cut off\n")


WEB = Path(os.environ.get("ONNXRUNTIME_WEB", "node_modules/onnxruntime-web")) / "dist"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing of each file that is asked for."""


@pytest.mark.skipif(
    not (shutil.which("chromium") and WEB.is_dir()),
    reason="needs chromium and ONNXRUNTIME_WEB=the folder of the npm package onnxruntime-web",
)
def test_the_page_in_a_browser_gives_the_same_score(folder, tmp_path):
    where, judged = folder
    (tmp_path / "judge.html").write_text(block("html"))
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(WEB / name, tmp_path)
    for name in ("part.onnx", "good.png", "bad.png"):
        shutil.copy(where / name, tmp_path)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, result in judged.items():
            page = f"http://127.0.0.1:{server.server_port}/judge.html?picture={name}.png"
            options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
            command = ["chromium", *options, "--virtual-time-budget=60000", "--dump-dom", page]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
            verdict, score = re.search(r'<p id="said">([\w ]+), score ([\d.]+)<', shown).groups()
            assert verdict == result.verdict
            assert float(score) == pytest.approx(result.score, rel=1e-3)
        server.shutdown()
