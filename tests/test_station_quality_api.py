"""Teaching, golden check, recipes, fits and studies by HTTP."""

import shutil
import time
from pathlib import Path

import pytest

from tests.parts import stripes
from tests.stations import started
from tests.striped import defect_picture, good_picture, odd_picture, png
from totalrecall.station.store.records import ANYBODY

PICTURE = {"Content-Type": "image/png"}


@pytest.fixture
def running(fitted, tmp_path):
    place = Path(shutil.copy(fitted, tmp_path / "part.trecall"))
    folder = tmp_path / "station"
    folder.mkdir()
    (folder / "recipes.toml").write_text('[product.ring]\nmodel = "part"\nfalse_alarm_rate = 0.3\n')
    with started(folder, place, hold_on_golden_failure=True) as (station, client):
        yield station, client


def is_problem(answer, status):
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


def over(client, address):
    """Ask until a work is over, and return what is told of it."""
    for _ in range(3000):
        facts = client.get(address).json()
        if facts["state"] not in ("working", "running"):
            return facts
        time.sleep(0.02)
    raise AssertionError(facts)


def test_teach_approve_and_undo(running):
    station, client = running
    place = station.shelf.get("part").path
    before = place.read_bytes()
    key = client.post("/v1/models/part/predict", content=odd_picture(0), headers=PICTURE).json()["id"]
    assert "judged fine" in is_problem(client.post("/v1/models/part/proposals", json={"fine": [key]}), 409)
    station.history.judge(key, "fine", ANYBODY)
    begun = client.post("/v1/models/part/proposals", json={"fine": [key]})
    assert begun.status_code == 202
    address = begun.headers["location"]
    facts = over(client, address)
    assert (facts["state"], facts["comparison"]["after"]["false_alarms"]) == ("proposed", 0)
    assert [one["id"] for one in client.get("/v1/proposals?model=part").json()["proposals"]] == [facts["id"]]
    assert client.post(f"{address}/approve").json()["state"] == "approved"
    assert place.read_bytes() != before
    assert "was approved by local already" in is_problem(client.post(f"{address}/reject"), 409)
    assert client.post("/v1/models/part/undo").json()["state"] == "undone"
    assert place.read_bytes() == before
    assert "nothing to take back" in is_problem(client.post("/v1/models/part/undo"), 409)


@pytest.mark.parametrize(
    "body", [{}, {"fine": []}, {"fine": ["x"]}, {"fine": ["../../etc/passwd"]}, {"files": []}, {"fine": "a" * 32}, []]
)
def test_what_is_no_proposal_is_refused(running, body):
    is_problem(running[1].post("/v1/models/part/proposals", json=body), 422)


def test_golden_pictures_by_http(running):
    station, client = running
    added = client.post("/v1/models/part/golden?expected=good&name=a", content=good_picture(0), headers=PICTURE)
    assert added.status_code == 201
    form = {"file": ("bad.png", defect_picture(0), "image/png")}
    second = client.post("/v1/models/part/golden?expected=defect", files=form).json()
    wrong = client.post("/v1/models/part/golden?expected=good", content=defect_picture(1), headers=PICTURE)
    assert "Expected is good" in is_problem(wrong, 409)
    is_problem(client.post("/v1/models/part/golden?expected=fine", files=form), 422)
    run = client.post("/v1/models/part/golden/check").json()
    assert run["passed"]
    told = client.get("/v1/models/part/golden").json()
    assert [one["name"] for one in told["pictures"]] == ["a", "bad.png"]
    assert (told["runs"], told["held"]) == ([run], None)
    station.holds["part"] = "by hand"
    is_problem(client.post("/v1/models/part/release", json={"reason": ""}), 422)
    assert client.post("/v1/models/part/release", json={"reason": "looked at"}).json()["held"] is None
    assert client.delete(f"/v1/golden/{second['id']}").status_code == 200
    is_problem(client.delete(f"/v1/golden/{second['id']}"), 404)
    is_problem(client.post("/v1/models/nobody/golden/check"), 404)


def test_an_inspection_becomes_golden_by_http(running):
    station, client = running
    key = client.post("/v1/models/part/predict", content=defect_picture(0), headers=PICTURE).json()["id"]
    is_problem(client.post(f"/v1/inspections/{key}/golden"), 409)
    station.history.judge(key, "defect", ANYBODY)
    assert client.post(f"/v1/inspections/{key}/golden").json()["expected"] == "defect"


def test_recipes_by_http(running):
    _, client = running
    before = client.get("/v1/recipes").json()
    assert (before["product"], before["recipes"][0]["product"], before["fault"]) == (None, "ring", None)
    assert client.post("/v1/recipes/select", json={"product": "ring"}).json()["product"] == "ring"
    inspection = client.post("/v1/models/part/predict", content=good_picture(0), headers=PICTURE).json()
    assert inspection["product"] == "ring"
    is_problem(client.post("/v1/recipes/select", json={"product": "other"}), 404)
    is_problem(client.post("/v1/recipes/select", json={}), 422)
    assert client.post("/v1/recipes/select", json={"product": None}).json()["product"] is None


def test_fit_by_http(running):
    _, client = running
    files = [("file", (f"{seed}.png", png(stripes(seed)), "image/png")) for seed in range(12)]
    begun = client.post("/v1/fits?name=new&size=64&false_alarm_rate=0.2", files=files)
    assert begun.status_code == 202
    facts = over(client, begun.headers["location"])
    assert facts["state"] == "done", facts
    answer = client.post("/v1/models/new/predict", content=defect_picture(0), headers=PICTURE).json()
    assert answer["verdict"] == "defect"
    assert client.get("/v1/fits").json()["fits"][0]["id"] == facts["id"]
    for address in ("/v1/fits?name=new", "/v1/fits?name=part"):
        assert "already" in is_problem(client.post(address, files=files), 409)
    for address in ("/v1/fits?name=../up", "/v1/fits?name=other&backbone=/etc/passwd", "/v1/fits?name=o&size=0"):
        is_problem(client.post(address, files=files), 422)
    is_problem(client.delete(begun.headers["location"]), 404)
    is_problem(client.post(f"/v1/fits/{'0' * 32}/audit"), 404)
    audit = client.post(f"/v1/fits/{facts['id']}/audit")
    assert over(client, audit.headers["location"])["result"]["pictures"] == 12


def test_study_by_http(running):
    _, client = running
    lines, files = ["part,path,truth"], []
    for truth, picture in (("good", good_picture), ("defect", defect_picture)):
        for number in range(3):
            name = f"{truth}-{number}.png"
            lines.append(f"{truth}{number},{name},{truth}")
            files.append(("file", (name, picture(number), "image/png")))
    is_problem(client.post("/v1/models/part/studies", files=files), 422)
    table = ("file", ("table.csv", "\n".join(lines).encode(), "text/csv"))
    begun = client.post("/v1/models/part/studies", files=[table, *files])
    assert begun.status_code == 202, begun.text
    facts = over(client, begun.headers["location"])
    assert (facts["state"], facts["result"]["effectiveness"]["count"]) == ("done", 6)
    page = client.get(f"{begun.headers['location']}/page")
    assert "Gauge study" in page.text
    assert page.headers["content-disposition"].startswith("attachment")
    assert client.get("/v1/studies").json()["studies"][0]["id"] == facts["id"]
