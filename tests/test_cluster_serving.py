"""serve --ray: the station's answers are those of one process, to the bit, whatever becomes of its replicas."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from tests.cluster_served import NEEDS_SERVE, ClusterServed
from tests.station_access import PASSWORD
from tests.stations import started
from totalrecall.cli import main
from totalrecall.cluster.serving import Count, Order, Replicas, ServedModel, count_of
from totalrecall.cluster.share import Share
from totalrecall.engines import Running
from totalrecall.errors import ClusterError, PictureError, SettingError
from totalrecall.registry import load_judge
from totalrecall.station.access.users import Users
from totalrecall.station.judging.recent import heat_of
from totalrecall.station.store.claim import mark_of
from totalrecall.station.store.database import Database
from totalrecall.station.store.records import ANYBODY
from totalrecall.station.store.trail import Trail

# ---------------------------------------------------------------------- before anything starts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicas", "2"], "--replicas is only for --ray, got 2. Add --ray local."),
        (["--ray", "local", "--replicas", "3:2"], "--replicas must be MIN:MAX with 1 <= MIN <= MAX, or N, got '3:2'."),
        (["--ray", "local", "--replicas", "0"], "--replicas must be MIN:MAX with 1 <= MIN <= MAX, or N, got '0'."),
        (["--ray", "local", "--replicas", "2:"], "--replicas must be MIN:MAX with 1 <= MIN <= MAX, or N, got '2:'."),
        (
            ["--ray", "local"],
            "--ray needs a history that every machine of the cluster reaches, in PostgreSQL, got sqlite, the default. "
            "Write --database postgresql+psycopg://USER@HOST/NAME, or leave --ray out.",
        ),
        (["--ray", "local", "--database", "sqlite:///history.db"], "in PostgreSQL, got sqlite. Write --database"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_and_nothing_is_made(words, message, tmp_path, capsys):
    folder = tmp_path / "station"
    assert main(["serve", "part.trecall", "--folder", str(folder), *words]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_there_are_as_many_replicas_as_are_asked_for_and_by_default_as_have_room():
    share = Share(cores=3, cards=0, room=2)
    assert count_of(share) == Count(1, 2)
    assert count_of(share, 2, 5) == Count(2, 5)  # machines that come later may have room
    with pytest.raises(SettingError, match=r"replicas must be at most 2, since each gets 3 cores of the clus.*, got 3"):
        count_of(share, 3)
    with pytest.raises(SettingError, match="since each gets 1 core and a card of the cluster, got 2"):
        count_of(Share(cores=1, cards=1, room=1), 2)


# ---------------------------------------------------------------------- replicas that die


class Handle:
    """Stands for Serve's handle: what each request comes to, in turn."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.judge = self.is_there = SimpleNamespace(remote=lambda *_: self)

    def result(self, timeout_s):
        assert timeout_s > 0
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception) and not isinstance(outcome, PictureError):
            raise outcome
        return outcome


MODEL = ServedModel("part", Path("part.trecall"), "a" * 64)


def asked(*outcomes, monkeypatch):
    """Return replicas whose requests come to these outcomes; pauses take no time."""
    from totalrecall.cluster import serving

    monkeypatch.setattr(serving, "_PAUSE", 0.0)
    replicas = Replicas(Count(2, 2), Share(1, 0, 2), Running(), heat=lambda _: np.zeros((1, 1), np.uint8))
    replicas._handle = Handle(*outcomes)
    replicas._shared["part"] = OrderedDict({MODEL.sha256: [None]})
    return replicas


def died():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


@NEEDS_SERVE
def test_a_picture_whose_replica_died_is_judged_by_another(monkeypatch):
    replicas = asked(died(), died(), ("result", "heat"), monkeypatch=monkeypatch)
    assert replicas.judge(Order(MODEL, b"picture")) == ("result", "heat")
    assert replicas.find_fault() is None


@NEEDS_SERVE
def test_a_picture_over_which_three_replicas_died_is_refused_and_the_station_is_not_ready_until_one_answers(
    monkeypatch,
):
    replicas = asked(died(), died(), died(), died(), True, monkeypatch=monkeypatch)
    with pytest.raises(ClusterError, match="3 replicas in turn died over a picture"):
        replicas.judge(Order(MODEL, b"picture"))
    assert "3 replicas in turn died" in replicas.find_fault()
    assert replicas.find_fault() is None


@NEEDS_SERVE
def test_a_cluster_that_does_not_answer_is_a_fault_and_not_a_picture_that_waits_for_ever(monkeypatch):
    from totalrecall.cluster import serving

    monkeypatch.setattr(serving, "_PATIENCE", 0.0)
    replicas = asked(TimeoutError(), monkeypatch=monkeypatch)
    with pytest.raises(ClusterError, match=r"No replica has answered for 0 s\. Look at the cluster: ray status\."):
        replicas.judge(Order(MODEL, b"picture"))


@NEEDS_SERVE
def test_a_station_that_stops_waits_for_replicas_that_are_there_and_refuses_what_waits_for_none(monkeypatch):
    from totalrecall.cluster import serving
    from totalrecall.errors import BusyError

    replicas = asked(TimeoutError(), TimeoutError(), ("result", "heat"), TimeoutError(), monkeypatch=monkeypatch)
    replicas.stop()
    assert replicas.judge(Order(MODEL, b"picture")) == ("result", "heat")
    replicas._stopping -= serving._GIVE_UP + 1  # long ago
    replicas._answered -= serving._GIVE_UP + 1
    with pytest.raises(BusyError, match=r"The station is stopping, and no replica answers\. Send the picture again"):
        replicas.judge(Order(MODEL, b"picture"))
    assert len(replicas._handle.outcomes) == 1  # nobody was asked
    replicas._seen = time.monotonic()  # there is one, which judges a large picture
    replicas._handle.outcomes.append(("late", "heat"))
    assert replicas.judge(Order(MODEL, b"picture")) == ("late", "heat")
    replicas._answered -= serving._GIVE_UP_AT_LAST + 1
    replicas._stopping -= serving._GIVE_UP_AT_LAST + 1
    with pytest.raises(BusyError):
        replicas.judge(Order(MODEL, b"picture"))


@NEEDS_SERVE
def test_an_application_that_was_removed_is_told_and_deployed_again_and_what_waited_is_asked_again(monkeypatch):
    from totalrecall.cluster import serving

    replicas = asked(TimeoutError(), monkeypatch=monkeypatch)
    replicas._name = "totalrecall-test"
    first, second, deployed = replicas._handle, Handle(("result", "heat")), []
    status = SimpleNamespace(applications={"another": None})

    def run_many(targets, wait_for_applications_running):
        assert not wait_for_applications_running
        deployed.extend(targets)
        return [second]

    there = SimpleNamespace(
        status=lambda: status, start=lambda **_: None, RunTarget=lambda *_, name, **__: name, run_many=run_many
    )
    there.deployment, there.exceptions = serving.need_serve().deployment, serving.need_serve().exceptions
    monkeypatch.setattr(serving, "need_serve", lambda: there)

    def result(timeout_s):
        assert timeout_s > 0
        replicas._look_after()
        assert replicas._fault == "The replicas were removed from the cluster. They are started again."
        raise TimeoutError

    first.result = result
    assert replicas.judge(Order(MODEL, b"picture")) == ("result", "heat")
    assert deployed == ["totalrecall-test"]
    assert replicas.find_fault() is None
    states = SimpleNamespace(deployments={"judge": SimpleNamespace(replica_states={"RUNNING": 1})})
    status.applications["totalrecall-test"] = states
    replicas._look_after()
    assert replicas._seen > 0
    del status.applications["totalrecall-test"]
    replicas.stop()
    replicas._look_after()
    assert deployed == ["totalrecall-test"]  # a station that stops starts nothing
    assert "were removed" in replicas._fault


def mark(address):
    """Return by what a station's database is known."""
    with Database(address) as database, database.read() as connection:
        return mark_of(connection)


def test_a_database_is_known_by_itself_and_not_by_its_address(postgresql):
    from sqlalchemy import create_engine, make_url, text

    one, other = postgresql.address(), postgresql.address()
    known = mark(one)
    assert mark(str(make_url(one).update_query_dict({"application_name": "x"}).render_as_string(False))) == known
    assert mark(other) != known
    with Database(one) as database:
        Trail(database).append(ANYBODY, "judge", "part", {}).result()
    assert mark(one) == known
    copy = make_url(one).set(database="copied")
    engine = create_engine(make_url(other), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE copied TEMPLATE "{make_url(one).database}"'))
    engine.dispose()
    assert mark(copy.render_as_string(False)) != known


@NEEDS_SERVE
def test_an_error_of_the_picture_is_an_answer_and_no_fault(monkeypatch):
    replicas = asked(PictureError("bytes[0] is no picture"), monkeypatch=monkeypatch)
    with pytest.raises(PictureError, match="is no picture"):
        replicas.judge(Order(MODEL, b"picture"))
    assert replicas.find_fault() is None


@NEEDS_SERVE
def test_a_file_that_the_station_has_not_read_yet_judges_nothing(model, monkeypatch):
    from totalrecall.errors import BusyError

    replicas = asked(monkeypatch=monkeypatch)
    with pytest.raises(BusyError, match="The file of model part is being replaced"):
        replicas.judge(Order(ServedModel("part", model, "b" * 64), b"picture"))


# ---------------------------------------------------------------------- a replica


@pytest.fixture
def replica(monkeypatch):
    """Make a replica in this process, which keeps its cores and heaps: whole maps or not."""
    from totalrecall.cluster import serving
    from totalrecall.cluster.serving import _How, _Replica

    for name in ("limit_cores", "limit_heaps", "set_max_pixels"):
        monkeypatch.setattr(serving, name, lambda _: None)
    monkeypatch.setattr(serving, "need_ray", lambda: SimpleNamespace(get=lambda contents: contents))
    return lambda *, whole_maps=False: _Replica(_How(Running(), 1, 1 << 20, heat_of, whole_maps))


def task(path, picture=None, rate=None, sha256="a" * 64):
    """Return what a replica is asked."""
    from totalrecall.cluster.models import shared_model
    from totalrecall.cluster.serving import _Task

    served = ServedModel("part", path, sha256)
    return _Task(served, [shared_model(path)], Order(served, picture, False, rate) if picture else None)


def test_a_replica_gives_the_result_of_the_model_at_the_rate_that_is_asked_for(model, pictures, replica):
    judge, picture = load_judge(model), pictures[0].read_bytes()
    there = replica()
    for rate in (None, 0.3, None, 0.2):
        expected = (judge if rate is None else judge.judging(false_alarm_rate=rate)).predict(picture)
        result, heat = there.judge(task(model, picture, rate))
        assert (result.score, result.threshold, result.p_value) == (
            expected.score,
            expected.threshold,
            expected.p_value,
        )
        assert result.regions == expected.regions
        assert result.nearest == expected.nearest
        assert np.array_equal(heat, heat_of(expected))
        assert result.anomaly_map.size == 0
        assert result.picture is None  # what the station has already is not sent back
    assert judge.judging(false_alarm_rate=0.3).threshold_ != judge.threshold_  # the rates differ in what they say


def test_a_replica_sends_the_map_only_where_it_is_asked_for(model, pictures, replica):
    picture = pictures[0].read_bytes()
    result, _ = replica(whole_maps=True).judge(task(model, picture))
    assert result.picture is None
    assert np.array_equal(result.anomaly_map, load_judge(model).predict(picture).anomaly_map)


def test_a_replica_opens_a_model_once_and_again_when_its_file_is_another_one(model, fitted, pictures, replica):
    there, picture = replica(), pictures[0].read_bytes()
    assert there.open(task(model)) is True
    first = there._judges["part"][1]
    there.judge(task(model, picture, 0.3))
    assert there._judges["part"][1] is first
    assert [sha256 for sha256, _ in there._variants] == ["a" * 64]
    result, _ = there.judge(task(fitted, picture, sha256="b" * 64))
    assert result.score == load_judge(fitted).predict(picture).score
    assert there._judges["part"][0] == "b" * 64
    assert not there._variants  # of the model before


def test_what_cannot_be_read_is_an_answer_of_a_replica(model, replica):
    answer = replica().judge(task(model, b"no picture"))
    assert isinstance(answer, PictureError)
    assert "is not a picture that can be decoded" in str(answer)


# ---------------------------------------------------------------------- the station


class Elsewhere:
    """Judges in the stead of the station."""

    at_once = 3

    def __init__(self):
        self.fault = None
        self.threads, self.alone = set(), []

    def judge(self, loaded, waiting, *, alone):
        self.alone.append(alone)
        self.threads.add(threading.current_thread().name)
        result = loaded.judge.predict(waiting.picture, conditions=waiting.conditions)
        return result, np.full((2, 3), 7, np.uint8)

    def find_fault(self):
        return self.fault


def test_a_station_takes_result_and_heat_from_whoever_judges_and_is_not_ready_while_nobody_does(
    place, pictures, tmp_path
):
    judges = Elsewhere()
    with started(tmp_path / "station", place, judges=judges) as (station, client):
        answer = client.post("/v1/models/part/predict", content=pictures[0].read_bytes())
        assert answer.status_code == 200
        heat = station.recent.get(answer.json()["id"]).heat
        assert (heat.shape, int(heat.max())) == ((2, 3), 7)
        assert judges.alone == [True]
        assert judges.threads <= {f"station-judge-{number}" for number in range(3)}
        assert client.get("/readyz").status_code == 200
        judges.fault = "No replica has answered for 300 s."
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["detail"] == "No replica judges at the moment. What is refused meanwhile says why."


# ---------------------------------------------------------------------- a station on a cluster


@pytest.fixture(scope="module")
def plain(model, pictures, tmp_path_factory):
    """What plain predict says of each test picture, by its bytes."""
    file = tmp_path_factory.mktemp("plain") / "plain.json"
    assert main(["predict", str(model), *map(str, pictures), "--json", str(file), "--quiet"]) == 0
    results = map(json.loads, file.read_text().splitlines())
    return {path.read_bytes(): result for path, result in zip(pictures, results, strict=True)}


@pytest.fixture(scope="module")
def served(model, postgresql, tmp_path_factory):
    """A station with two replicas; its model is a copy that a test may replace."""
    folder = tmp_path_factory.mktemp("cluster")
    copy = shutil.copy(model, folder / "part.trecall")
    with ClusterServed(folder / "station", postgresql.address(), copy, "--replicas", 2) as station:
        yield station


on_a_cluster = [NEEDS_SERVE, pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")]


def marked(test):
    """Mark a test that needs a cluster."""
    for mark in on_a_cluster:
        test = mark(test)
    return test


@marked
def test_the_station_says_what_predict_says_to_the_bit_and_what_it_refuses_is_refused(served, plain):
    assert "judged by 2 replicas" in served.line
    for picture, expected in plain.items():
        status, got = served.judge(picture)
        assert status == 200
        left_out = ("path", "milliseconds")
        assert {name: got[name] for name in expected if name not in left_out} == {
            name: value for name, value in expected.items() if name not in left_out
        }
        status, again = served.ask(f"/v1/inspections/{got['id']}")
        assert (status, again) == (200, got)
    status, refused = served.judge(b"no picture")
    assert status == 415
    assert refused["detail"].startswith("picture is not a picture that can be decoded")
    assert [row[2] for row in served.rows()].count("unreadable") == 1
    assert served.ask("/v1/models/other/predict", b"x", **{"Content-Type": "image/png"})[0] == 404
    assert served.ask("/healthz", None, Host="evil.example")[0] == 421
    assert served.ask("/readyz")[0] == 200


def load(served, picture_of, count, clients, answers, enough=lambda: False):
    """Return threads of clients, that send pictures until it is enough, and note what is answered to each."""

    def client(number):
        for at in range(count):
            if enough():
                return
            picture = picture_of(number * count + at)
            try:
                answers.append((picture, *served.judge(picture)))
            except OSError:  # the station has ended
                return

    return [threading.Thread(target=client, args=(number,)) for number in range(clients)]


@marked
def test_a_replica_that_is_killed_under_load_loses_nothing_and_is_replaced(served, plain):
    pictures, answers, before = list(plain), [], served.count()
    there = served.wait_for_replicas(lambda numbers: len(numbers) == 2)
    clients = load(served, lambda at: pictures[at % len(pictures)], 50, 4, answers)
    for client in clients:
        client.start()
    while len(answers) < 60:
        assert any(client.is_alive() for client in clients), served.complaints()
    victim = min(there)
    served.replicas()[victim].send_signal(signal.SIGKILL)
    for client in clients:
        client.join()
    assert [status for _, status, _ in answers] == [200] * 200
    assert all(got["score"] == plain[picture]["score"] for picture, _, got in answers)
    given = [got["id"] for _, _, got in answers]
    rows = {key: score for key, score, _, _ in served.rows()}
    assert len(set(given)) == 200
    assert served.count() == before + 200
    assert all(rows[got["id"]] == got["score"] for _, _, got in answers)
    assert served.trail().is_whole
    now = served.wait_for_replicas(lambda numbers: len(numbers) == 2 and victim not in numbers)
    assert now != there


@marked
def test_a_model_that_is_replaced_under_load_is_used_by_all_replicas_and_no_request_is_dropped(
    served, plain, added, parts, tmp_path
):
    pictures, answers = list(plain), []
    before = served.ask("/v1/models/part")[1]["sha256"]
    new = tmp_path / "new.trecall"
    path = served.folder.with_name("part.trecall")
    options = ["--backbone", added, "--size", "64", "--coreset", "0.02", "--at-least", "1", "--precision", "f32"]
    assert main(["fit", str(parts), "--layout", "mvtec", "-o", str(new), "--quiet", *options]) == 0

    def enough():
        return sum(got.get("model_sha256") not in (before, None) for _, _, got in list(answers)) >= 40

    clients = load(served, lambda at: pictures[at % len(pictures)], 10_000, 3, answers, enough)
    for client in clients:
        client.start()
    while len(answers) < 20:
        assert any(client.is_alive() for client in clients), served.complaints()
    new.replace(path)
    for client in clients:
        client.join()
    assert {status for _, status, _ in answers} == {200}
    file = tmp_path / "after.json"
    names = [str(written(tmp_path, picture, f"{at}.png")) for at, picture in enumerate(pictures)]
    assert main(["predict", str(path), *names, "--json", str(file), "--quiet"]) == 0
    after = dict(zip(pictures, (json.loads(line)["score"] for line in file.read_text().splitlines()), strict=True))
    now = served.ask("/v1/models/part")[1]["sha256"]
    assert now != before
    scores = {before: {picture: result["score"] for picture, result in plain.items()}, now: after}
    assert scores[before] != after
    assert {got["model_sha256"] for _, _, got in answers} == {before, now}
    assert all(got["score"] == scores[got["model_sha256"]][picture] for picture, _, got in answers)


def written(folder, picture, name="picture.png"):
    """Return the file of a picture."""
    path = folder / name
    path.write_bytes(picture)
    return path


@marked
def test_with_users_a_session_and_a_token_are_good_whichever_replica_judges(served, plain):
    with Database(served.database) as database:
        users = Users(database, Trail(database))
        users.add("anna", "engineer", PASSWORD, ANYBODY)
        session, secret = users.log_in("anna", PASSWORD)
        _, token = users.tokens.add("press-3", ANYBODY)
    picture = next(iter(plain))
    time.sleep(1.0)  # a first user whom another process adds is noticed half a second later
    assert served.judge(picture)[0] == 401
    person = {"Cookie": f"totalrecall_session={secret}", "X-CSRF-Token": session.csrf}
    for headers in (person, {"Authorization": f"Bearer {token}"}):
        for _ in range(6):
            status, got = served.ask("/v1/models/part/predict", picture, **{"Content-Type": "image/png", **headers})
            assert status == 200, got
    assert served.trail().is_whole


@marked
def test_the_only_replica_is_replaced_load_brings_more_and_ctrl_c_answers_what_was_accepted_and_leaves_no_process(
    model, postgresql, plain, tmp_path
):
    pictures, answers = list(plain), []
    with ClusterServed(tmp_path / "station", postgresql.address(), model, "--replicas", "1:2") as station:
        assert "judged by 1 to 2 replicas" in station.line
        assert len(station.replicas()) == 1
        clients = load(station, lambda at: pictures[at % len(pictures)], 100_000, 4, answers)
        for client in clients:
            client.start()
        while len(answers) < 10:
            assert any(client.is_alive() for client in clients), station.complaints()
        (victim,) = station.replicas()  # the only one: its pictures wait for the next
        station.replicas()[victim].send_signal(signal.SIGKILL)
        station.wait_for_replicas(lambda numbers: len(numbers) == 2 and victim not in numbers)
        assert {status for _, status, _ in list(answers)} == {200}
        family = station.family()
        code, said, complaints = station.stop(signal.SIGINT, group=True)
        for client in clients:
            client.join()
        assert code == 0, complaints
        assert "Stopped. Everything that was answered is in the history." in said
        assert {status for _, status, _ in answers} <= {200, 503}
        given = [got["id"] for _, status, got in answers if status == 200]
        assert len(given) == len(set(given)) > 0
        assert set(given) <= {key for key, *_ in station.rows()}
        assert station.trail().is_whole
        _, alive = psutil.wait_procs(family, timeout=60)
        assert [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def machines(monkeypatch):
    """A cluster of two machines with one core each, which goes on whatever becomes of a command."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own code
        from ray.cluster_utils import Cluster as Machines

        machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        machines.add_node(num_cpus=1)
    yield machines
    machines.shutdown()


@marked
def test_a_killed_command_is_followed_by_the_next_and_a_machine_may_go_without_a_picture_lost(
    model, postgresql, plain, tmp_path, machines
):
    database, answered = postgresql.address(), set()

    def judged(station):
        for picture, expected in plain.items():
            status, got = station.judge(picture)
            assert (status, got["score"]) == (200, expected["score"])
            answered.add(got["id"])

    with OnMachines.at(machines.address)(tmp_path / "station", database, model, "--replicas", 2) as station:
        judged(station)
        station.process.kill()
        station.process.wait()
    with OnMachines.at(machines.address)(tmp_path / "station", database, model, "--replicas", 2) as station:
        judged(station)
        last = list(machines.list_all_nodes())[-1]
        machines.remove_node(last, allow_graceful=False)
        judged(station)
        assert {key for key, *_ in station.rows()} == answered
        assert station.trail().is_whole
        assert station.stop()[0] == 0


_REMOVE = """
import sys
import ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
hold = [ray.util.placement_group([{"CPU": 1}] * int(sys.argv[3]))] if int(sys.argv[3]) else []
try:
    serve.delete(sys.argv[2])
except TimeoutError:  # the station had started them again before this saw that they were gone
    pass
ray.get([one.ready() for one in hold])
print("removed", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def removed(machines, database, cores=0):
    """Have somebody remove the replicas of a station; inside the block so many cores are taken."""
    command = [sys.executable, "-c", _REMOVE, machines.address, f"totalrecall-{mark(database)[:16]}", str(cores)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as somebody:
        while (line := somebody.stdout.readline()) != "removed\n":
            assert line, somebody.wait()
        yield
        somebody.stdin.close()


def metrics(station):
    """Return the station's metrics."""
    with urllib.request.urlopen(f"{station.address}/metrics", timeout=60) as answer:
        return answer.read().decode()


@marked
def test_stations_leave_each_others_replicas_alone_and_one_whose_replicas_are_removed_recovers_or_ends(
    model, postgresql, plain, tmp_path, machines
):
    here = OnMachines.at(machines.address)
    first, second = postgresql.address(), postgresql.address()
    picture, expected = next(iter(plain.items()))
    with here(tmp_path / "first", first, model, "--replicas", 1) as station:
        with here(tmp_path / "second", second, model, "--replicas", 1) as other:
            for one in (station, other, station):
                status, got = one.judge(picture)
                assert (status, got["score"]) == (200, expected["score"])
            with removed(machines, first):
                pass
            assert station.judge(picture)[1]["score"] == expected["score"]
            assert station.ask("/readyz")[0] == 200
            assert "The replicas were removed from the cluster. They are started again." in station.complaints()
            assert other.stop()[0] == 0
        assert station.judge(picture)[0] == 200
        answers = []
        with removed(machines, first, cores=2):
            clients = load(station, lambda _: picture, 1, 4, answers)
            for client in clients:
                client.start()
            while "totalrecall_queue 1.0" not in metrics(station):  # the others were taken to be judged
                assert all(client.is_alive() for client in clients), (answers, station.complaints())
                time.sleep(0.1)
            code, said, complaints = station.stop()
            for client in clients:
                client.join()
        assert code == 0, complaints
        assert "Stopped." in said
        assert [status for _, status, _ in answers] == [503] * 4


class OnMachines(ClusterServed):
    """A station on a cluster that runs already."""

    @classmethod
    def at(cls, address):
        """Return the class for a cluster's address."""
        return type("OnTheseMachines", (cls,), {"cluster": ("--ray", address)})
