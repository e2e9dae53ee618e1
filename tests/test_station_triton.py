"""Triton's own client works unchanged: the same score as `predict`, in its binary form and as JSON."""

import subprocess
import sys
import textwrap

import pytest

from tests.served import Served
from totalrecall import load_detector

pytestmark = pytest.mark.slow

CLIENT = """
    import sys
    import cv2
    import numpy as np
    import tritonclient.http as triton

    address, *paths = sys.argv[1:]
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("part")
    assert client.get_model_metadata("part")["platform"] == "totalrecall"
    for path in paths:
        data = open(path, "rb").read()
        pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        for binary in (True, False):
            given = triton.InferInput("pixels", pixels.shape, "UINT8")
            given.set_data_from_numpy(pixels, binary_data=binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("score", "verdict")]
            answer = client.infer("part", [given], outputs=wanted)
            print(answer.as_numpy("score")[0], answer.as_numpy("verdict")[0])
        given = triton.InferInput("picture", [1], "BYTES")
        given.set_data_from_numpy(np.array([data], dtype=object), binary_data=True)
        print(client.infer("part", [given]).as_numpy("score")[0], "-")
"""


def test_tritons_client_gets_the_score_of_predict(model, parts, tmp_path):
    pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    (tmp_path / "client.py").write_text(textwrap.dedent(CLIENT))
    place = tmp_path / "part.trecall"
    place.write_bytes(model.read_bytes())
    paths = sorted((parts / "test").rglob("*.png"))[:3]
    with Served(tmp_path / "station", place) as station:
        words = [sys.executable, str(tmp_path / "client.py"), station.address.removeprefix("http://"), *map(str, paths)]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    detector = load_detector(place)
    expected = [score for path in paths for score in [detector.predict(path).score] * 3]
    assert [float(line.split()[0]) for line in lines] == expected  # to the last bit
