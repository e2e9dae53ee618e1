"""An OPC UA server in the shape of OPC 40100-1 (Machine Vision): state, recipe, a single job, and the last result.

    Objects/VisionSystem
        VisionStateMachine/CurrentState                            Preoperational or Operational
        VisionStateMachine/AutomaticModeStateMachine
            CurrentState                                           Initialized, Ready or SingleExecution
            StartSingleJob(MeasId, PartId, Picture)                -> JobId, Error, Message
        RecipeManagement
            Recipes, ActiveRecipe
            PrepareRecipe(RecipeId)                                -> Error, Message
        ResultManagement
            LatestResult/...                                       of any inspection; ResultId is written last
            GetResultByJobId(JobId)                                -> IsComplete, Result (JSON), Error, Message

All names are in the namespace `urn:totalrecall:station`. An Error of 0 is none.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from totalrecall.errors import BusyError, ConflictError, NotFoundError, PictureError, SettingError, TotalRecallError
from totalrecall.station.access.policy import is_loopback
from totalrecall.station.judging.caption import Caption
from totalrecall.station.links.base import LOG, reason_of
from totalrecall.station.links.credentials import Login
from totalrecall.station.links.opcua_nodes import NAMESPACE, make_nodes
from totalrecall.station.station import Link
from totalrecall.station.store.records import NOT_PRODUCTION, Actor

if TYPE_CHECKING:
    from totalrecall.station.quality.recipe_file import Recipe
    from totalrecall.station.station import Station
    from totalrecall.station.store.records import Inspection

__all__ = ["Endpoint", "OpcUa"]

NOT_READY, REFUSED, UNKNOWN, BUSY = -1, -2, -3, -4  # values of Error
_START = 60.0  # seconds that the server may take to begin
_ROOM = 64 << 10  # bytes of a message around its picture
_JOBS = 256  # whose results are remembered
_BUSY_SECONDS = 5.0  # that a job waits for room in the queue


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens, and who may use it.

    Attributes:
        host: address of this machine.
        port: of TCP.
        login: name and password of clients; anonymous ones are let in if None.
        certificate: file of the server's certificate; then every connection is signed and encrypted.
        key: file of its key.
    """

    host: str
    port: int
    login: Login | None = None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def at(
        cls,
        address: str,
        login: Login | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        *,
        insecure: bool = False,
    ) -> "Endpoint":
        """Return the endpoint of an address, HOST:PORT.

        Raises:
            SettingError: it is none; or others than this machine's programs could use it without a login.
        """
        host, _, port = address.removeprefix("opc.tcp://").rstrip("/").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise SettingError(f"--opcua must be HOST:PORT, got {address!r}. Usual: 127.0.0.1:4840.")
        if (certificate is None) != (key is None):
            raise SettingError("--opcua-cert and --opcua-key go together: name both files, or none.")
        if not insecure and not is_loopback(host) and (login is None or certificate is None):
            raise SettingError(
                f"--opcua {address} can be reached from other machines. Name --opcua-login, --opcua-cert and "
                "--opcua-key; or 127.0.0.1; or --insecure."
            )
        return cls(host, int(port), login, certificate, key)

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"opc.tcp://{self.host}:{self.port}/totalrecall"


@dataclass
class _Job:
    """A job that a client started.

    Attributes:
        inspection: once there is one.
        error: why there is none, or no verdict.
        done: whether it has ended.
    """

    inspection: "Inspection | None" = None
    error: str = ""
    done: bool = False


class OpcUa(Link):
    """A server for OPC UA clients, in a thread of its own.

    Args:
        endpoint: where it listens.
        limit: of the bytes of a picture.
    """

    def __init__(self, endpoint: Endpoint, *, limit: int = 64 << 20) -> None:
        self._endpoint, self._limit = endpoint, limit
        self.name = "opcua"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started: threading.Event = threading.Event()
        self._fault: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._latest: Inspection | None = None
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._recipe = ""
        self._product: str | None = None  # of the station, as last heard
        self._running = 0

    # ------------------------------------------------------------------ a link

    def told(self, inspection: "Inspection") -> None:
        """Have the newest inspection shown; of several at once only the last."""
        loop = self._loop
        if inspection.source in NOT_PRODUCTION or loop is None:
            return
        with self._lock:
            planned, self._latest = self._latest is not None, inspection
        if not planned:
            with contextlib.suppress(RuntimeError):  # it has stopped
                loop.call_soon_threadsafe(lambda: self._in_background(self._show_latest()))

    @property
    def fault(self) -> str | None:
        """Why it serves no more."""
        return None if self._fault is None else f"The OPC UA server has stopped: {self._fault}"

    def start(self, station: "Station") -> None:
        """Begin to serve.

        Raises:
            SettingError: the address is taken, or a certificate cannot be used.
        """
        if not is_loopback(self._endpoint.host) and self._endpoint.certificate is None:
            LOG.warning("%s is not encrypted, and other machines reach it.", self.name)
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # it writes down every client's mistake
        self._station = station
        self._thread = threading.Thread(target=self._run, name="station-opcua", daemon=True)
        self._thread.start()
        if not self._started.wait(_START):
            raise SettingError(f"The OPC UA server at {self._endpoint.url} did not begin within {_START:.0f} s.")
        if self._loop is None:
            reason = getattr(self._fault, "strerror", None) or self._fault or "it has stopped"
            raise SettingError(f"The OPC UA server cannot listen at {self._endpoint.url}: {reason}")

    def close(self) -> None:
        """Say that no more jobs are taken, and stop."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        if self._thread is not None:
            self._thread.join()

    # ------------------------------------------------------------------ the server; all below runs in its thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._fault = error
            if self._started.is_set():
                LOG.warning("%s has stopped: %s", self.name, error)
        finally:
            self._loop = None
            self._started.set()

    async def _serve(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._following = asyncio.Lock()
        server = await self._server()
        self._nodes = await make_nodes(server, self._start_single_job, self._prepare_recipe, self._result_by_job)
        names = self._recipes()
        await self._nodes.write("Recipes", names)
        current = self._station.recipes.current
        self._product = None if current is None else current.product
        await self._activate(self._product or (names[0] if len(names) == 1 else ""))
        async with server:
            await self._show_state()
            self._loop = asyncio.get_running_loop()
            self._station.recipes.on_change(self._recipe_changed)
            self._started.set()
            await self._stop.wait()
            await self._nodes.write("VisionState", "Preoperational")
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _server(self) -> Any:
        """Return a server that does not listen yet."""
        from asyncua import Server, ua

        end = self._endpoint
        server = Server(user_manager=_UserManager(end.login))
        await server.init()
        server.set_endpoint(end.url)
        server.set_server_name("Total Recall inspection station")
        await server.set_application_uri(NAMESPACE)
        server.limits.max_message_size = self._limit + _ROOM
        server.limits.max_chunk_count = 1 + server.limits.max_message_size // 8192
        policies = ua.SecurityPolicyType
        if end.certificate is not None:
            await server.load_certificate(str(end.certificate))
            await server.load_private_key(str(end.key))
            encrypted = [policies.Basic256Sha256_SignAndEncrypt, policies.Aes256Sha256RsaPss_SignAndEncrypt]
            server.set_security_policy(encrypted)
        else:
            server.set_security_policy([policies.NoSecurity])
        server.set_identity_tokens([ua.UserNameIdentityToken if end.login else ua.AnonymousIdentityToken])
        return server

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ recipes

    def _recipes(self) -> list[str]:
        """Return the products that have a recipe, and the models, by which jobs can be judged."""
        products = [recipe.product for recipe in self._station.recipes.all()]
        return list(dict.fromkeys([*products, *(loaded.name for loaded in self._station.shelf.all())]))

    def _is_product(self, name: str) -> bool:
        return any(recipe.product == name for recipe in self._station.recipes.all())

    def _recipe_changed(self, _recipe: "Recipe | None") -> None:
        """Follow a product that was chosen elsewhere: on the page, by the API, by MQTT. Any thread may call it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has stopped
                loop.call_soon_threadsafe(lambda: self._in_background(self._follow()))

    async def _follow(self, *, chosen: bool = False) -> None:
        """Show the recipes, and jobs are judged by the product that is made from now on.

        Args:
            chosen: a client chose the product; else a model that a client chose stays, unless the product is another.
        """
        async with self._following:
            names, current = self._recipes(), self._station.recipes.current
            await self._nodes.write("Recipes", names)
            product = None if current is None else current.product
            if product != self._product or chosen:
                self._product = product
                await self._activate(product or (names[0] if len(names) == 1 else ""))
                await self._show_state()

    async def _activate(self, name: str) -> None:
        self._recipe = name
        await self._nodes.write("ActiveRecipe", name)

    async def _prepare_recipe(self, name: str) -> tuple[int, str]:
        """Choose by which recipe the next jobs are judged."""
        names = self._recipes()
        await self._nodes.write("Recipes", names)
        if name not in names:
            return UNKNOWN, f"RecipeId must be one of {', '.join(names[:8])}."
        if self._is_product(name):  # for the whole station, as on its page
            try:
                await asyncio.to_thread(self._station.recipes.select, name, Actor("opcua", "machine"))
            except TotalRecallError as error:
                return REFUSED, str(error)
            await self._follow(chosen=True)
            return 0, ""
        await self._activate(name)
        await self._show_state()
        return 0, ""

    # ------------------------------------------------------------------ jobs

    async def _start_single_job(self, meas_id: str, part_id: str, picture: bytes) -> tuple[str, int, str]:
        """Begin to inspect a picture; the result comes later."""
        if not self._recipe or self._running:
            state = "SingleExecution" if self._running else "Initialized"
            return "", NOT_READY, f"The state must be Ready, and is {state}."
        if not picture or len(picture) > self._limit:
            return "", REFUSED, f"Picture must have from 1 to {self._limit:,} bytes, got {len(picture or b''):,}."
        job, seen = secrets.token_hex(16), _Job()
        self._running += 1
        waited: Future[Inspection] | None = None
        try:
            await self._show_state()
            waited = await self._submitted(meas_id or "picture", part_id, picture, seen)
        except Exception as error:
            kinds = {BusyError: BUSY, NotFoundError: UNKNOWN, ConflictError: NOT_READY}
            code = next((code for kind, code in kinds.items() if isinstance(error, kind)), REFUSED)
            return "", code, reason_of(error)
        finally:
            if waited is None:  # also when the client has left meanwhile
                await self._over()
        self._jobs[job] = seen
        while len(self._jobs) > _JOBS:
            self._jobs.popitem(last=False)
        self._in_background(self._finish_job(job, waited))
        return job, 0, ""

    async def _submitted(self, name: str, serial: str, picture: bytes, job: _Job) -> "Future[Inspection]":
        """Submit a picture, and wait a little where the queue is full."""

        def also(_: Connection, inspection: "Inspection") -> None:
            job.inspection = inspection  # of a picture that cannot be read, too

        product = self._recipe if self._is_product(self._recipe) else None
        model = self._recipe if product is None else None
        taken = time.monotonic()  # a change while the queue is full is of later parts
        caption = Caption(model=model, product=product, name=name, serial=serial, source="opcua", taken=taken)
        end = time.monotonic() + _BUSY_SECONDS
        while self._station.inspector.waiting >= self._station.inspector.limit and time.monotonic() < end:
            await asyncio.sleep(0.05)
        return self._station.submit(picture, caption, also)

    async def _finish_job(self, key: str, waited: "Future[Inspection]") -> None:
        job = self._jobs[key]
        try:
            await asyncio.wrap_future(waited)
        except PictureError as error:
            job.error = str(error)
        except Exception as error:
            job.error, job.inspection = reason_of(error), None  # it was not committed
        finally:
            try:
                if job.inspection is not None:
                    await self._nodes.show(job.inspection, key)
            except Exception as error:  # the result is there all the same, and is asked for by the job's id
                LOG.warning("The result of job %s cannot be shown by OPC UA: %s", key, reason_of(error))
            finally:
                job.done = True
                await self._over()

    async def _over(self) -> None:
        """Take no notice of a job any more: the state is Ready again."""
        self._running -= 1
        await self._show_state()

    async def _result_by_job(self, key: str) -> tuple[bool, str, int, str]:
        job = self._jobs.get(key)
        if job is None:
            return False, "", UNKNOWN, f"No job of that id is among the last {_JOBS}."
        facts = (
            "" if not job.done or job.inspection is None else json.dumps(job.inspection.to_json(), ensure_ascii=False)
        )
        return job.done, facts, REFUSED if job.error else 0, job.error

    # ------------------------------------------------------------------ what clients see

    async def _show_latest(self) -> None:
        with self._lock:
            inspection, self._latest = self._latest, None
        if inspection is None or inspection.source == "opcua":  # those are shown with their job
            return
        try:
            await self._nodes.show(inspection, "")
        except Exception as error:  # nobody waits for this, and the next inspection is shown by the same way
            LOG.warning("Inspection %s cannot be shown by OPC UA: %s", inspection.key, reason_of(error))

    async def _show_state(self) -> None:
        automatic = "SingleExecution" if self._running else "Ready" if self._recipe else "Initialized"
        await self._nodes.write("VisionState", "Operational")
        await self._nodes.write("AutomaticState", automatic)


class _UserManager:
    """Lets in whom the login allows, and nobody may change the address space."""

    def __init__(self, login: Login | None) -> None:
        self._login = login

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002
        username: str | None = None,
        password: str | bytes | None = None,
        certificate: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return a user without rights to change anything, or None."""
        from asyncua.crypto.permission_rules import User, UserRole

        if self._login is not None:
            given = password.encode() if isinstance(password, str) else password or b""
            name, secret = (text.encode() for text in self._login)
            if not (hmac.compare_digest((username or "").encode(), name) & hmac.compare_digest(given, secret)):
                return None
        return User(role=UserRole.User, name=username or "anonymous")
