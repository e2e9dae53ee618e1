"""The HTTP API of the station: the same score as `predict`, one form for every refusal, nothing lost."""

import base64
import io
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from tests.stations import judging_held, started
from totalrecall import load_detector
from totalrecall.errors import BusyError, HistoryError
from totalrecall.station import drawing
from totalrecall.station.access.policy import Policy
from totalrecall.station.judging.caption import Caption
from totalrecall.station.judging.room import Room
from totalrecall.station.store.records import Filter
from totalrecall.station.web.api_v2 import _OUTPUTS

PICTURE = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def running(place, tmp_path_factory):
    with started(tmp_path_factory.mktemp("station"), place, batch=16) as (station, client):
        yield station, client


@pytest.fixture(scope="module")
def expected(place, pictures):
    detector = load_detector(place)
    return {path: detector.predict(path) for path in pictures}


def is_problem(answer, status):
    """Whether an answer is a problem of RFC 9457."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, body["status"]) == (status, status)
    assert "\n" not in body["detail"]
    return body["detail"]


def multipart(path, **fields):
    return {"files": {"file": (path.name, path.read_bytes(), "image/png")}, "data": fields}


def test_a_form_and_a_body_give_the_score_of_predict(running, pictures, expected):
    _, client = running
    for path in pictures:
        form = client.post("/v1/models/part/predict", **multipart(path, serial="A-1", line="7")).json()
        body = client.post("/v1/models/part/predict?serial=A-1", content=path.read_bytes(), headers=PICTURE).json()
        result = expected[path].to_json()
        for answer in (form, body):
            assert answer["score"] == pytest.approx(result["score"], rel=1e-6)
            for name in ("threshold", "is_anomalous", "regions", "nearest"):
                assert answer[name] == pytest.approx(result[name]) if name == "threshold" else True
            assert answer["verdict"] == expected[path].verdict
            assert answer["serial"] == "A-1"
        assert (form["path"], form["line"]) == (path.name, "7")
        assert form["id"] != body["id"]


def test_what_was_answered_is_in_the_history(running, pictures):
    station, client = running
    answer = client.post("/v1/models/part/predict", **multipart(pictures[0], serial="kept")).json()
    kept = station.history.get(answer["id"])
    assert kept.to_json() == client.get(f"/v1/inspections/{answer['id']}").json()
    assert (kept.serial, kept.score, kept.source) == ("kept", answer["score"], "api")


def test_many_clients_at_once_get_their_own_answers(running, pictures, expected):
    _, client = running

    def ask(number):
        path = pictures[number % len(pictures)]
        answer = client.post("/v1/models/part/predict", **multipart(path, serial=str(number))).json()
        return answer["serial"] == str(number) and answer["score"] == pytest.approx(expected[path].score, rel=1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(40)))


def test_the_overlay_is_a_png_of_the_picture(running, pictures):
    _, client = running
    png = client.post("/v1/models/part/predict", **multipart(pictures[0]), headers={"Accept": "image/png"})
    assert png.headers["content-type"] == "image/png"
    drawn = cv2.imdecode(np.frombuffer(png.content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    key = png.headers["x-inspection-id"]
    assert client.get(f"/v1/inspections/{key}/overlay.png").content == png.content
    inside = client.post("/v1/models/part/predict?heatmap=true", **multipart(pictures[0])).json()
    assert cv2.imdecode(np.frombuffer(base64.b64decode(inside["heatmap"]), np.uint8), 1).shape == drawn.shape


def test_the_overlays_colours_have_the_numbers_of_the_models_distances(running, pictures, expected, monkeypatch):
    station, client = running
    path = max(pictures, key=lambda path: expected[path].score)
    key = client.post("/v1/models/part/predict", **multipart(path)).json()["id"]
    drawn = []
    monkeypatch.setattr(drawing, "draw_overlay", lambda *given, **named: drawn.append((given, named)) or given[0])
    assert client.get(f"/v1/inspections/{key}/overlay.png").status_code == 200
    (_, heat), named = drawn.pop()
    result = expected[path]
    assert named["numbers"]
    assert named["threshold"] == pytest.approx(result.pixel_threshold)
    shown = np.minimum(result.anomaly_map, 2 * result.pixel_threshold)  # twice the threshold is the end of the colours
    assert heat.max() == pytest.approx(shown.max(), abs=result.pixel_threshold / 100)
    monkeypatch.setattr(drawing, "_model_of", lambda *_: None)  # another model has taken its place
    assert client.get(f"/v1/inspections/{key}/overlay.png").status_code == 200
    (_, stored), named = drawn.pop()
    assert not named["numbers"]
    assert stored.max() / named["threshold"] == pytest.approx(heat.max() / result.pixel_threshold)
    without = replace(station.recent.get(key).inspection, threshold=None)  # such a map was scaled to itself
    drawing.overlay_png(station, without)
    _, named = drawn.pop()
    assert not named["numbers"]
    assert np.isnan(named["threshold"])


def test_a_batch_keeps_the_order_and_names_the_broken_one(running, pictures, expected):
    _, client = running
    files = [("file", (path.name, path.read_bytes(), "image/png")) for path in pictures]
    files.insert(2, ("file", ("broken.png", b"no picture", "image/png")))
    results = client.post("/v1/models/part/batch", files=files).json()["results"]
    assert [one["path"] for one in results] == [name for _, (name, _, _) in files]
    assert results[2]["score"] is None
    assert results[2]["status"] == 415
    assert results[2]["error"].startswith("broken.png")
    assert results[0]["score"] == pytest.approx(expected[pictures[0]].score, rel=1e-6)


def test_a_job_is_answered_at_once_and_done_later(running, pictures):
    _, client = running
    contents = [path.read_bytes() for path in pictures] * 3
    contents.insert(1, b"no picture")
    files = [("file", (f"{at}.png", content, "image/png")) for at, content in enumerate(contents)]
    begun = client.post("/v1/models/part/jobs", files=files)
    assert begun.status_code == 202
    assert begun.headers["location"] == f"/v1/jobs/{begun.json()['id']}"
    for _ in range(600):
        job = client.get(begun.headers["location"]).json()
        if job["state"] != "running":
            break
        time.sleep(0.1)
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", len(files), 3 * len(pictures), 1)
    assert [one["path"] for one in job["results"]] == [f"{at}.png" for at in range(len(files))]
    assert [at for at, one in enumerate(job["results"]) if one["score"] is None] == [1]


def test_an_unreadable_picture_is_415_and_in_the_history(running):
    station, client = running
    answer = client.post("/v1/models/part/predict", files={"file": ("odd.png", b"nothing", "image/png")})
    assert is_problem(answer, 415).startswith("odd.png")
    (found,) = station.history.find(Filter(verdict="unreadable", text="odd.png"))
    assert found.score is None
    assert found.is_anomalous is None


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"url": "/v1/models/none/predict", "content": b"x", "headers": PICTURE}, 404, "must be one of part"),
        ({"url": "/v1/models/part/predict", "content": b"", "headers": PICTURE}, 422, "no picture"),
        ({"url": "/v1/models/part/predict", "content": b"x", "headers": {"Content-Type": "text/html"}}, 422, "image/"),
        ({"url": "/v1/models/part/predict", "files": {"picture": ("a.png", b"x")}}, 422, "got 'picture'"),
        ({"url": "/v1/models/part/predict", "files": {"file": ("a.png", b"")}}, 422, "is empty"),
        ({"url": "/v1/models/part/predict", "data": {"serial": "1"}}, 422, "image/"),
        ({"url": "/v1/models/part/predict?serial=" + "9" * 201, "content": b"x", "headers": PICTURE}, 422, "serial"),
        ({"url": "/v1/models/part/predict?line=a%00b", "content": b"x", "headers": PICTURE}, 422, "line"),
        ({"url": "/v1/models/part/predict?heatmap=perhaps", "content": b"x", "headers": PICTURE}, 422, "heatmap"),
        ({"url": "/v1/nothing", "content": b"x"}, 404, "no such page"),
        ({"url": "/v1/models", "content": b"x"}, 405, "not possible"),
    ],
)
def test_a_wrong_request_is_one_line_in_one_form(running, request_, status, words):
    _, client = running
    assert words in is_problem(client.post(**request_), status)


@pytest.mark.parametrize("path", ["/v1/inspections/xyz", "/v1/jobs/..%2f..%2fetc", "/v1/inspections/" + "0" * 33])
def test_an_id_is_32_hexadecimal_digits(running, path):
    assert running[1].get(path).status_code in (400, 404, 422)


def test_an_id_that_is_not_there_is_404(running):
    for path in ("inspections/", "jobs/"):
        assert "no " in is_problem(running[1].get(f"/v1/{path}{'0' * 32}"), 404)


def test_a_form_with_too_many_pictures_is_refused(running, pictures):
    _, client = running
    data = pictures[0].read_bytes()
    files = [("file", (f"{number}.png", data, "image/png")) for number in range(17)]
    assert client.post("/v1/models/part/batch", files=files).status_code in (400, 422)


def fill(station, data, waiting):
    """Submit pictures until both threads hold some and the queue is full."""
    for _ in range(200):
        try:
            waiting.append(station.submit(data, Caption(model="part")))
        except BusyError:
            if station.inspector.waiting == station.inspector.limit:
                return
        time.sleep(0.02)
    raise AssertionError("the queue never filled")


def test_a_job_says_why_its_pictures_were_not_judged(place, pictures, tmp_path):
    with started(tmp_path / "station", place) as (station, client):
        station.holds["part"] = "The golden check of model part failed."
        files = [("file", (path.name, path.read_bytes(), "image/png")) for path in pictures[:2]]
        begun = client.post("/v1/models/part/jobs", files=files)
        deadline = time.monotonic() + 60
        while (job := client.get(begun.headers["location"]).json())["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (job["state"], job["done"], job["failed"]) == ("done", 0, 2)
        assert job["error"] == "Model part is held: The golden check of model part failed."
        told = [(one["path"], one["score"], one["error"], one["place"]) for one in job["results"]]
        assert told == [(path.name, None, job["error"], place) for place, path in enumerate(pictures[:2])]


def test_the_results_of_a_job_come_as_its_pictures_whatever_the_clock_does(running, pictures, monkeypatch):
    _, client = running

    class Backwards(datetime):
        """A clock that is set back by three seconds at each look."""

        looks = 0

        @classmethod
        def now(cls, tz=None):
            cls.looks += 1
            return datetime.now(tz) - timedelta(seconds=3 * cls.looks)

    monkeypatch.setattr("totalrecall.station.station.datetime", Backwards)
    files = [("file", (f"{at}.png", pictures[at % 2].read_bytes(), "image/png")) for at in range(9)]
    begun = client.post("/v1/models/part/jobs", files=files)
    deadline = time.monotonic() + 60
    while (job := client.get(begun.headers["location"]).json())["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert Backwards.looks >= len(files)
    assert [(one["path"], one["place"]) for one in job["results"]] == [(f"{at}.png", at) for at in range(9)]


@pytest.mark.parametrize("name", ["Picture 4\N{NARROW NO-BREAK SPACE}PM.png", "a\N{ZERO WIDTH SPACE}.png", "x" * 400])
def test_no_picture_is_refused_for_its_name(running, pictures, name):
    _, client = running
    files = [("file", (one, pictures[0].read_bytes(), "image/png")) for one in ("first.png", name, "last.png")]
    results = client.post("/v1/models/part/batch", files=files).json()["results"]
    assert all(one["score"] is not None for one in results)
    shown = results[1]["path"]
    assert shown.isprintable()
    assert len(shown) <= 300
    assert shown[-4:] == name[-4:]


def test_a_serial_that_cannot_be_printed_is_named(running, pictures):
    _, client = running
    form = {"serial": "A\N{NO-BREAK SPACE}7"}
    for route in ("predict", "jobs"):
        answer = client.post(f"/v1/models/part/{route}", files={"file": ("a.png", pictures[0].read_bytes())}, data=form)
        said = "serial must hold printable letters only, got the character U+00A0. Leave it out."
        assert is_problem(answer, 422) == said


def test_a_body_that_grows_too_large_is_no_fault_of_the_station(place, tmp_path, capsys):
    with started(tmp_path / "station", place, policy=Policy(max_body=50_000)) as (_, client):
        for route in ("predict", "jobs"):
            answer = client.post(
                f"/v1/models/part/{route}", content=iter([b"x" * 30_000] * 3), headers={"Content-Type": "image/png"}
            )
            assert is_problem(answer, 413) == "The body must have at most 50,000 bytes."
    assert "fault" not in capsys.readouterr().err


def test_pictures_are_drawn_one_after_the_other_where_they_are_large(running, pictures, monkeypatch):
    station, client = running
    key = client.post("/v1/models/part/predict", content=pictures[0].read_bytes(), headers=PICTURE).json()["id"]
    drawn, most, lock = [], [], threading.Lock()
    draw = drawing.draw_overlay

    def counted(*given, **named):
        with lock:
            drawn.append(1)
            most.append(len(drawn))
        time.sleep(0.05)  # long enough for the others to come
        overlay = draw(*given, **named)
        with lock:
            drawn.pop()
        return overlay

    monkeypatch.setattr(drawing, "draw_overlay", counted)
    for limit, at_once in ((1, 1), (10**9, 2)):
        most.clear()
        monkeypatch.setattr(station, "drawing_room", Room(limit))
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: client.get(f"/v1/inspections/{key}/overlay.png"), range(4)))
        assert {answer.status_code for answer in answers} == {200}
        assert (max(most) == 1) == (at_once == 1)


def test_a_database_that_cannot_be_used_is_503_with_retry_after_for_programs_and_people(
    place, pictures, tmp_path, monkeypatch
):
    with started(tmp_path / "station", place) as (station, client):

        def lost(*_, **__):
            raise HistoryError("The database does not answer.")

        monkeypatch.setattr(station.history, "add", lost)
        monkeypatch.setattr(station.history, "find", lost)
        answer = client.post("/v1/models/part/predict", content=pictures[0].read_bytes(), headers=PICTURE)
        assert is_problem(answer, 503) == "The database does not answer."
        page = client.get("/history")
        assert (page.status_code, "does not answer" in page.text) == (503, True)
        assert answer.headers["retry-after"] == page.headers["retry-after"] == "5"
        monkeypatch.setattr(station.users, "_write", lost)
        added = client.post("/users", data={"name": "anna", "role": "engineer", "password": "a long password 1"})
        assert (added.status_code, added.headers["retry-after"]) == (503, "5")


def test_a_full_queue_is_503_with_retry_after(place, pictures, tmp_path):
    with started(tmp_path / "station", place, queue=1) as (station, client), judging_held(station) as (gate, entered):
        data = pictures[0].read_bytes()
        waiting = [station.submit(data, Caption(model="part"))]
        assert entered.wait(30)
        fill(station, data, waiting)
        full = client.post("/v1/models/part/predict", content=data, headers=PICTURE)
        gate.set()
        assert "allowed are 1" in is_problem(full, 503)
        assert full.headers["retry-after"] == "1"
        assert len({future.result(60).key for future in waiting}) == len(waiting)


def test_a_request_that_is_given_up_takes_no_verdict_away(running, pictures):
    station, _ = running
    future = station.submit(pictures[0].read_bytes(), Caption(model="part", name="given up"))
    assert not future.cancel()
    assert station.history.get(future.result(60).key).name == "given up"


def test_a_held_model_judges_nothing(running, pictures):
    station, client = running
    station.holds["part"] = "its golden check failed."
    try:
        answer = client.post("/v1/models/part/predict", content=pictures[0].read_bytes(), headers=PICTURE)
        assert "golden" in is_problem(answer, 409)
        assert client.get("/v2/models/part/ready").status_code == 503
    finally:
        station.holds.clear()


def test_models_health_and_metrics(running, place):
    _, client = running
    (facts,) = client.get("/v1/models").json()["models"]
    assert (facts["name"], facts["kind"]) == ("part", "patchcore")
    assert client.get("/v1/models/part").json()["drift"]["words"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    client.post("/v1/models/part/predict", content=b"x", headers=PICTURE)
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code >= 400
    text = client.get("/metrics").text
    assert re.search(r'totalrecall_http_requests_total\{method="GET",status="4\d\d"\}', text)
    assert 'totalrecall_inspections_total{model="part",source="api",verdict=' in text
    assert "totalrecall_queue 0.0" in text
    assert client.post("/v1/models/part/reload").json()["sha256"] == facts["sha256"]


def test_a_station_that_cannot_write_is_not_ready_until_it_can(place, pictures, tmp_path):
    folder, aside = tmp_path / "station", tmp_path / "aside"
    with started(folder, place) as (station, client):
        tried = []
        write = station.database.write

        def counted(function):
            tried.append(function)
            return write(function)

        station.database.write = counted
        assert client.get("/readyz").json() == {"status": "ready"}
        assert tried == []  # a probe costs no write while all is well
        folder.rename(aside)
        picture = pictures[0].read_bytes()
        refused = is_problem(client.post("/v1/models/part/predict", content=picture, headers=PICTURE), 503)
        answer = client.get("/readyz")
        assert "was removed or replaced" in refused
        told = is_problem(answer, 503)  # to anybody who asks
        assert told.startswith("The station cannot write into its database.")
        assert str(tmp_path) not in told
        assert answer.headers["retry-after"] == "5"
        aside.rename(folder)
        assert client.get("/readyz").status_code == 200
        tried.clear()
        assert client.get("/readyz").status_code == 200
        assert tried == []
        assert client.post("/v1/models/part/predict", content=picture, headers=PICTURE).status_code == 200


# ---------------------------------------------------------------------- the Open Inference Protocol


def infer(client, body, binary=b"", **headers):
    head = json.dumps(body).encode()
    if binary:
        headers["Inference-Header-Content-Length"] = str(len(head))
    return client.post("/v2/models/part/infer", content=head + binary, headers=headers)


def outputs(answer):
    return {one["name"]: one["data"] for one in answer.json()["outputs"]}


def test_v2_pixels_and_files_as_json_give_the_score_of_predict(running, pictures, expected):
    _, client = running
    path = pictures[-1]
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    by_pixels = infer(
        client,
        {
            "id": "one",
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()}],
        },
    )
    text = base64.b64encode(path.read_bytes()).decode()
    by_file = infer(client, {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": [text]}]})
    for answer in (by_pixels, by_file):
        assert outputs(answer)["score"] == [pytest.approx(expected[path].score, rel=1e-6)]
        assert outputs(answer)["verdict"] == [expected[path].verdict]
    assert by_pixels.json()["id"] == "one"


def test_v2_binary_tensors_as_tritons_client_sends_them(running, pictures, expected):
    _, client = running
    few = pictures[:3]
    packed = b"".join(len(path.read_bytes()).to_bytes(4, "little") + path.read_bytes() for path in few)
    answer = infer(
        client,
        {
            "inputs": [
                {
                    "name": "picture",
                    "datatype": "BYTES",
                    "shape": [3],
                    "parameters": {"binary_data_size": len(packed)},
                }
            ],
            "outputs": [
                {"name": "score", "parameters": {"binary_data": True}},
                {"name": "verdict", "parameters": {"binary_data": True}},
                {"name": "is_anomalous"},
            ],
        },
        packed,
    )
    at = int(answer.headers["inference-header-content-length"])
    head, rest = json.loads(answer.content[:at]), io.BytesIO(answer.content[at:])
    scores = np.frombuffer(rest.read(head["outputs"][0]["parameters"]["binary_data_size"]), "<f8")
    assert scores.tolist() == [expected[path].score for path in few]
    for path in few:
        assert rest.read(int.from_bytes(rest.read(4), "little")).decode() == expected[path].verdict
    assert head["outputs"][2]["data"] == [int(expected[path].is_anomalous) for path in few]


def test_v2_says_minus_one_where_there_is_no_verdict():
    kind, read = _OUTPUTS["is_anomalous"]
    told = [read(SimpleNamespace(is_anomalous=one)) for one in (True, False, None)]
    assert (kind, told) == ("INT64", [1, 0, -1])


def test_v2_names_the_version_that_judged_though_the_model_was_replaced_meanwhile(
    place, pictures, tmp_path, monkeypatch
):
    own = shutil.copy(place, tmp_path / "part.trecall")
    with started(tmp_path / "station", own) as (station, client):
        submit_all = station.submit_all

        def replaced(*args, **kwargs):
            detector = load_detector(own)
            detector.update(threshold=1e6)
            detector.save(own)
            station.shelf.look()
            return submit_all(*args, **kwargs)

        monkeypatch.setattr(station, "submit_all", replaced)
        text = base64.b64encode(pictures[0].read_bytes()).decode()
        answer = infer(client, {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": [text]}]})
        assert outputs(answer)["threshold"] == [1e6]
        assert answer.json()["model_version"] == station.shelf.get("part").sha256[:16]


def test_v2_takes_all_pictures_or_none(place, pictures, tmp_path):
    with started(tmp_path / "station", place, queue=2) as (station, client):
        texts = [base64.b64encode(path.read_bytes()).decode() for path in pictures[:3]]
        body = {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [3], "data": texts}]}
        assert "allowed are 2" in is_problem(infer(client, body), 503)
        assert station.history.count() == 0


def test_v2_tells_what_it_takes(running):
    _, client = running
    assert client.get("/v2").json()["name"] == "totalrecall"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert {one["name"] for one in client.get("/v2/models/part").json()["inputs"]} == {"picture", "pixels"}


PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": [PIXELS, PIXELS]},
        {"inputs": [{**PIXELS, "data": [1, 2]}]},
        {"inputs": [{**PIXELS, "data": [1, 2, 300]}]},
        {"inputs": [{**PIXELS, "data": [1, 2, -1]}]},
        {"inputs": [{**PIXELS, "data": [1.5, 2, 3]}]},
        {"inputs": [{**PIXELS, "data": [[1], [2, 3]]}]},
        {"inputs": [{**PIXELS, "data": None}]},
        {"inputs": [{**PIXELS, "shape": [1, 1, 4]}]},
        {"inputs": [{**PIXELS, "shape": [1 << 19, 1 << 19, 3]}]},
        {"inputs": [{**PIXELS, "shape": [0, 1, 3]}]},
        {"inputs": [{**PIXELS, "shape": [True, 1, 3]}]},
        {"inputs": [{**PIXELS, "datatype": "FP32"}]},
        {"inputs": [{**PIXELS, "parameters": {"binary_data_size": 3}}]},
        {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [1], "data": ["***"]}]},
        {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [2], "data": ["aGk="]}]},
        {"inputs": [{"name": "picture", "datatype": "BYTES", "shape": [17], "data": ["aGk="] * 17}]},
        {"inputs": [PIXELS], "outputs": [{"name": "temperature"}]},
        {"inputs": [PIXELS], "outputs": {"name": "score"}},
        {"inputs": [PIXELS], "outputs": [{"name": ["score"]}]},
    ],
    ids=repr,
)
def test_v2_refuses_what_is_not_as_it_says(running, body):
    is_problem(infer(running[1], body), 422)


def test_v2_reads_no_more_elements_than_it_was_told_of(running):
    count = 4_000_000  # empty ones: each is its length alone
    tensor = {"name": "picture", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 * count}}
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = running[1].post(
        "/v2/models/part/infer",
        content=head + bytes(4 * count),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert is_problem(answer, 422) == "The shape says 1 pictures, and the data holds more."


def test_v2_refuses_a_wrong_length(running):
    for length in ("-1", "9" * 30, "x"):
        answer = infer(running[1], {"inputs": [PIXELS]}, **{"Inference-Header-Content-Length": length})
        is_problem(answer, 422)


def test_the_description_names_every_route(running):
    _, client = running
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/models/{name}/predict", "/v2/models/{name}/infer", "/metrics"} <= set(paths)
