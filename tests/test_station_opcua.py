"""OPC UA, by asyncua's own client: state, recipe, a single job and its result; and who is let in."""

import asyncio
import contextlib
import json
import logging
import shutil

import pytest

from tests.line_ready import free_port, make_certificate, wait_until
from tests.stations import judging_held, started
from totalrecall import load_detector
from totalrecall.errors import SettingError
from totalrecall.station.store.records import ANYBODY

asyncua = pytest.importorskip("asyncua", reason="needs asyncua (pip install 'totalrecall[opcua]')")
from totalrecall.station.links.opcua import BUSY, NOT_READY, REFUSED, UNKNOWN, Endpoint, OpcUa  # noqa: E402
from totalrecall.station.links.opcua_nodes import NAMESPACE, Nodes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def running(place, tmp_path_factory):
    link = OpcUa(Endpoint("127.0.0.1", free_port()), limit=2_000_000)
    with started(tmp_path_factory.mktemp("station"), place, links=[link]) as (station, http):
        yield station, http, link


class Machine:
    """The objects of a station as a client sees them."""

    def __init__(self, client, space: int) -> None:
        self._client, self._space = client, space

    def node(self, path: str):
        return self._client.nodes.objects.get_child(
            [f"{self._space}:{name}" for name in ("VisionSystem", *path.split("/"))]
        )

    async def read(self, path: str):
        value = await (await self.node(path)).read_value()
        return value.Text if isinstance(value, asyncua.ua.LocalizedText) else value

    async def result(self, name: str):
        return await self.read(f"ResultManagement/LatestResult/{name}")

    async def automatic(self) -> str:
        return await self.read("VisionStateMachine/AutomaticModeStateMachine/CurrentState")

    async def start_single_job(self, picture: bytes, meas="m", part=""):
        machine = await self.node("VisionStateMachine/AutomaticModeStateMachine")
        picture = asyncua.ua.Variant(picture, asyncua.ua.VariantType.ByteString)
        return await machine.call_method(f"{self._space}:StartSingleJob", meas, part, picture)

    async def prepare(self, recipe: str):
        return await (await self.node("RecipeManagement")).call_method(f"{self._space}:PrepareRecipe", recipe)

    async def result_of(self, job: str):
        return await (await self.node("ResultManagement")).call_method(f"{self._space}:GetResultByJobId", job)

    async def finished(self, job: str):
        while not (outcome := await self.result_of(job))[0]:
            await asyncio.sleep(0.02)
        return outcome


@contextlib.asynccontextmanager
async def machine_at(link, prepare=lambda _: None):
    client = asyncua.Client(link._endpoint.url, timeout=30)
    if (awaited := prepare(client)) is not None:
        await awaited
    async with client:
        yield Machine(client, await client.get_namespace_index(NAMESPACE))


async def until(question):
    while not await question():
        await asyncio.sleep(0.02)


def test_a_job_gets_the_score_of_predict(running, place, pictures):
    station, _, link = running
    detector = load_detector(place)

    async def scenario():
        async with machine_at(link) as machine:
            assert await machine.read("VisionStateMachine/CurrentState") == "Operational"
            assert await machine.automatic() == "Ready"
            assert await machine.read("RecipeManagement/Recipes") == ["part"]
            assert await machine.read("RecipeManagement/ActiveRecipe") == "part"
            for path in pictures:
                expected = detector.predict(path)
                job, error, message = await machine.start_single_job(path.read_bytes(), path.name, "A-7")
                assert (error, message) == (0, "")
                _, text, error, _ = await machine.finished(job)
                assert error == 0
                facts = json.loads(text)
                assert facts == station.history.get(facts["id"]).to_json()
                assert facts["score"] == expected.score
                assert (facts["source"], facts["serial"], facts["path"]) == ("opcua", "A-7", path.name)
                assert await machine.result("Score") == facts["score"]
                assert await machine.result("Threshold") == facts["threshold"]
                assert await machine.result("Verdict") == expected.verdict
                assert await machine.result("IsAnomalous") is expected.is_anomalous
                assert await machine.result("ResultId") == facts["id"]
                assert await machine.result("JobId") == job
                assert await machine.result("PartId") == "A-7"
                assert await machine.result("RecipeId") == "part"
                assert (await machine.result("CreationTime")).isoformat()[:19] == facts["at"][:19]
                assert json.loads(await machine.result("Result")) == facts

    asyncio.run(scenario())


def test_the_latest_result_is_of_any_inspection(running, pictures):
    _, http, link = running

    async def scenario():
        async with machine_at(link) as machine:
            answer = await asyncio.to_thread(
                http.post,
                "/v1/models/part/predict?serial=B-1",
                content=pictures[0].read_bytes(),
                headers={"Content-Type": "image/png"},
            )
            await until(lambda: shows(answer.json()["id"]))
            assert await machine.result("PartId") == "B-1"
            assert await machine.result("JobId") == ""

    async def shows(key):
        async with machine_at(link) as machine:
            return await machine.result("ResultId") == key

    asyncio.run(scenario())


def test_while_a_job_runs_the_state_says_so_and_no_second_begins(running, pictures):
    station, _, link = running

    async def scenario(gate, entered):
        async with machine_at(link) as machine:
            job, error, _ = await machine.start_single_job(pictures[0].read_bytes())
            assert error == 0
            assert await asyncio.to_thread(entered.wait, 30)
            assert await machine.automatic() == "SingleExecution"
            assert (await machine.result_of(job))[:2] == [False, ""]
            _, error, message = await machine.start_single_job(pictures[0].read_bytes())
            assert error == NOT_READY
            assert "is SingleExecution" in message
            gate.set()
            await machine.finished(job)
            assert await machine.automatic() == "Ready"

    with judging_held(station) as (gate, entered):
        asyncio.run(scenario(gate, entered))


def test_what_cannot_be_judged_is_told_and_the_state_is_ready_again(running, pictures):
    station, _, link = running

    async def scenario():
        async with machine_at(link) as machine:
            job, error, _ = await machine.start_single_job(b"no picture", part="C-1")
            assert error == 0
            _, text, error, message = await machine.finished(job)
            assert error == REFUSED
            assert "not a picture" in message
            assert json.loads(text)["verdict"] == "unreadable"
            assert await machine.result("Verdict") == "unreadable"
            for name in ("Score", "IsAnomalous"):  # a missing number has no good quality
                node = await machine.node(f"ResultManagement/LatestResult/{name}")
                value = await node.read_data_value(raise_on_bad_status=False)
                assert not value.StatusCode.is_good()
            for picture, part, words in (
                (b"", "", "got 0"),
                (bytes(2_000_001), "", "2,000,001"),
                (b"x", "9" * 201, "serial"),
            ):
                _, error, message = await machine.start_single_job(picture, part=part)
                assert error == REFUSED
                assert words in message
            station.holds["part"] = "its golden check failed."
            _, error, message = await machine.start_single_job(pictures[0].read_bytes())
            assert error == NOT_READY
            assert "golden" in message
            station.holds.clear()
            assert (await machine.result_of("0" * 32))[2] == UNKNOWN
            assert await machine.automatic() == "Ready"

    asyncio.run(scenario())
    assert BUSY not in (NOT_READY, REFUSED, UNKNOWN)


@pytest.mark.parametrize("where", ["when the picture is sent", "when the result is shown"])
def test_after_an_error_that_nobody_foresaw_the_state_is_ready_again(running, pictures, monkeypatch, caplog, where):
    station, _, link = running
    if where == "when the picture is sent":
        monkeypatch.setattr(station, "submit", failing)
    else:
        monkeypatch.setattr(Nodes, "show", failing)

    async def scenario():
        async with machine_at(link) as machine:
            job, error, message = await machine.start_single_job(pictures[0].read_bytes())
            if where == "when the picture is sent":
                assert (job, error, message) == ("", REFUSED, "unexpected AssertionError: a wire is loose")
            else:
                _, text, error, message = await machine.finished(job)
                assert (error, message) == (0, "")  # the result is there all the same
                assert json.loads(text)["verdict"]
                assert "cannot be shown by OPC UA: unexpected AssertionError: a wire is loose" in caplog.text
            assert await machine.automatic() == "Ready"

    asyncio.run(scenario())


def failing(*_):
    raise AssertionError("a wire is loose")


def test_an_inspection_that_cannot_be_shown_is_told_and_the_next_one_is_shown(running, pictures, monkeypatch, caplog):
    _, http, link = running

    def send():
        return http.post(
            "/v1/models/part/predict", content=pictures[0].read_bytes(), headers={"Content-Type": "image/png"}
        ).json()["id"]

    with monkeypatch.context() as broken:
        broken.setattr(Nodes, "show", failing)
        first = send()
        wait_until(lambda: f"Inspection {first} cannot be shown by OPC UA" in caplog.text)
    second = send()

    async def scenario():
        async with machine_at(link) as machine:
            await until(lambda: shows(machine))

    async def shows(machine):
        return await machine.result("ResultId") == second

    asyncio.run(scenario())


def test_of_several_recipes_one_is_chosen(place, pictures, tmp_path):
    other = shutil.copy(place, tmp_path / "other.trecall")
    link = OpcUa(Endpoint("127.0.0.1", free_port()))

    async def scenario():
        async with machine_at(link) as machine:
            assert await machine.automatic() == "Initialized"
            _, error, message = await machine.start_single_job(pictures[0].read_bytes())
            assert (error, "is Initialized" in message) == (NOT_READY, True)
            assert await machine.read("RecipeManagement/Recipes") == ["other", "part"]
            assert (await machine.prepare("missing"))[0] == UNKNOWN
            assert await machine.prepare("other") == [0, ""]
            assert await machine.automatic() == "Ready"
            job, _, _ = await machine.start_single_job(pictures[0].read_bytes())
            assert json.loads((await machine.finished(job))[1])["model"] == "other"
            assert await machine.prepare("part") == [0, ""]
            assert await machine.read("RecipeManagement/ActiveRecipe") == "part"

    with started(tmp_path / "station", place, other, links=[link]):
        asyncio.run(scenario())


def test_a_product_is_chosen_by_its_recipe_here_and_elsewhere(place, pictures, tmp_path):
    folder = tmp_path / "station"
    folder.mkdir()
    products = "".join(f'[product."Washer {size}"]\nmodel = "part"\n' for size in (5, 6))
    (folder / "recipes.toml").write_text(products)
    link = OpcUa(Endpoint("127.0.0.1", free_port()))

    async def scenario(station):
        async with machine_at(link) as machine:
            assert await machine.read("RecipeManagement/Recipes") == ["Washer 5", "Washer 6", "part"]
            assert await machine.prepare("Washer 5") == [0, ""]
            assert station.recipes.current.product == "Washer 5"
            job, error, message = await machine.start_single_job(pictures[0].read_bytes())
            assert (error, message) == (0, "")
            assert json.loads((await machine.finished(job))[1])["product"] == "Washer 5"
            await asyncio.to_thread(station.recipes.select, "Washer 6", ANYBODY)
            while await machine.read("RecipeManagement/ActiveRecipe") != "Washer 6":
                await asyncio.sleep(0.02)

    with started(folder, place, links=[link]) as (station, _):
        asyncio.run(scenario(station))
        assert station.trail.rows(1)[0].action == "recipe"


def test_clients_change_nothing_but_by_methods(running):
    _, _, link = running

    async def scenario():
        ua = asyncua.ua
        async with machine_at(link) as machine:
            node = await machine.node("ResultManagement/LatestResult/Verdict")
            with pytest.raises(ua.UaError):
                await node.write_value("good")
            with pytest.raises(ua.UaError):
                await (await machine.node("ResultManagement")).add_object(2, "Mine")
            with pytest.raises(ua.UaError):
                await (await machine.node("VisionStateMachine")).delete()
            automatic = await machine.node("VisionStateMachine/AutomaticModeStateMachine")
            for wrong in ((), ("a",), ("a", "b", "text"), (1, 2, 3)):
                with pytest.raises(ua.UaError):
                    await automatic.call_method(f"{machine._space}:StartSingleJob", *wrong)
            assert await machine.automatic() == "Ready"

    asyncio.run(scenario())


def test_name_password_and_encryption(place, pictures, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    tls = make_certificate(tmp_path / "tls", uri=NAMESPACE)
    mine = make_certificate(tmp_path / "client", uri="urn:freeopcua:client")
    login = ("line", "a private word")
    endpoint = Endpoint("127.0.0.1", free_port(), login, tls / "cert.pem", tls / "key.pem")
    link = OpcUa(endpoint)

    def as_user(name, password):
        async def prepare(client):
            client.set_user(name)
            client.set_password(password)
            await client.set_security(
                asyncua.crypto.security_policies.SecurityPolicyBasic256Sha256,
                str(mine / "cert.pem"),
                str(mine / "key.pem"),
                server_certificate=str(tls / "cert.pem"),
            )

        return prepare

    async def scenario():
        async with machine_at(link, as_user(*login)) as machine:
            job, error, message = await machine.start_single_job(pictures[0].read_bytes())
            assert (error, message) == (0, "")
            assert (await machine.finished(job))[2] == 0
        for name, password in (("line", "wrong"), ("other", "a private word")):
            with pytest.raises(asyncua.ua.UaError):
                async with machine_at(link, as_user(name, password)):
                    pass
        with pytest.raises(Exception):  # noqa: B017  without encryption there is no endpoint at all
            async with machine_at(link):
                pass

    with started(tmp_path / "station", place, links=[link]):
        asyncio.run(scenario())
    assert "private" not in caplog.text


def test_an_address_that_is_taken_is_told(running, place, tmp_path):
    _, _, link = running
    with (
        pytest.raises(SettingError, match="cannot listen"),
        started(tmp_path / "station", place, links=[OpcUa(link._endpoint)]),
    ):
        pass


@pytest.mark.parametrize("address", ["", "4840", "host:", "host:port", "host:70000", "http://host"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(SettingError, match="must be HOST:PORT"):
        Endpoint.at(address)


def test_other_machines_are_let_in_only_with_login_and_encryption(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for arguments in ((), (("a", "b"),), (None, cert, key)):
        with pytest.raises(SettingError, match="can be reached from other machines"):
            Endpoint.at("0.0.0.0:4840", *arguments)
    assert Endpoint.at("0.0.0.0:4840", ("a", "b"), cert, key).port == 4840
    assert Endpoint.at("0.0.0.0:4840", insecure=True).login is None
    assert Endpoint.at("opc.tcp://127.0.0.1:4840/").host == "127.0.0.1"
    with pytest.raises(SettingError, match="go together"):
        Endpoint.at("127.0.0.1:4840", None, cert)
