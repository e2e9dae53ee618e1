"""Pictures of a station judged by replicas of Ray Serve, which are replaced when they die and are more when more wait.

A replica is a process that judges and holds nothing else: what must be once (the history, its audit trail, users,
links with the line) stays in the process that asks, and so does the picture until an answer is there. So a replica may
be killed at any moment: its pictures are judged by another.

    the station's thread -> `Replicas.judge` -> Serve's handle -> `_Replica.judge` -> result and heat, back again

Models travel through Ray's shared memory, once for each machine; a replica opens one at the first picture that asks
for it, by the SHA-256 of its file, so that no picture is judged by another model than the station says.
"""

import contextlib
import logging
import math
import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from totalrecall.cluster.connection import need_ray
from totalrecall.cluster.models import opened_model, shared_model
from totalrecall.cluster.share import Share
from totalrecall.engines import Running
from totalrecall.errors import BusyError, ClusterError, MissingExtraError, SettingError, TotalRecallError
from totalrecall.pictures.formats.header import max_pixels, set_max_pixels
from totalrecall.registry import warm_up
from totalrecall.system.files import file_sha256
from totalrecall.system.memory import limit_heaps
from totalrecall.system.text import counted
from totalrecall.system.threads import limit_cores, on_one_core

if TYPE_CHECKING:
    from totalrecall.detectors.model_file import Contents
    from totalrecall.registry import AnyJudge
    from totalrecall.scoring import Result


__all__ = ["Count", "Order", "Replicas", "ServedModel", "count_of", "need_serve"]

_LOG = logging.getLogger("totalrecall.cluster")
_DEPLOYMENT = "judge"
_IN_FLIGHT = 2  # pictures of a replica: one that it judges, and one that waits, so that it never does
_WAITING = 1  # more for each replica that there may be: what waits is what tells that more are needed
_DEATHS = 3  # of replicas over one picture; then it is the picture that kills them
_PATIENCE = 300.0  # seconds for one picture: a cluster that answers nothing must not hold the line for ever
_LITTLE_PATIENCE = 10.0  # seconds, once it has answered nothing: what waits learns it soon, and the station can end
_LOOK = 5.0  # seconds for a replica to say that it is there
_SLICE = 0.5  # seconds of waiting for an answer between two looks whether it can still come
_WATCH = 2.0  # seconds between two looks whether the application is there
_GIVE_UP = 5.0  # seconds without a replica, once the station stops; then what waits is refused
_GIVE_UP_AT_LAST = 60.0  # seconds without an answer, once it stops, even if there is a replica
_PAUSE = 0.2  # seconds before a picture is given to another replica
_ONE_DEATH = 5.0  # seconds in which all that is lost is of one replica
_HEALTH = 2.0  # seconds between two looks of Serve whether a replica lives
_VARIANTS = 32  # models at a rate of their own that a replica holds
_MODELS_KEPT = 2  # versions of a model: pictures that were taken before it was replaced are judged by the one before
# seconds; more replicas come soon, and go late: the next part is on its way
_SCALING = {"upscale_delay_s": 3.0, "downscale_delay_s": 60.0, "metrics_interval_s": 1.0, "look_back_period_s": 5.0}
_ENVIRONMENT = {  # read when Serve is imported; what a person has set stays
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_worker_niceness": "0",  # of a cluster of this machine; else the lowest, and a line waits for it
}


@dataclass(frozen=True)
class ServedModel:
    """A model that judges.

    Attributes:
        name: as pictures ask for it.
        path: of its file.
        sha256: of that file when the station read it.
    """

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, eq=False)
class Order:
    """A picture that is to be judged.

    Attributes:
        model: by which.
        picture: the bytes of its file.
        conditions: measure how it was taken, too.
        rate: false-alarm rate at which it is judged; the model's own if None.
    """

    model: ServedModel
    picture: bytes
    conditions: bool = False
    rate: float | None = None


def need_serve() -> Any:
    """Return the package ray.serve.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    need_ray()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Serve's own code
            from ray import serve
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise MissingExtraError(
            f"serve --ray needs Ray Serve, which cannot be imported ({reason}). "
            'Run: pip install "totalrecall[cluster,station,postgresql]"'
        ) from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return serve


@dataclass(frozen=True)
class Count:
    """How many replicas there are.

    Attributes:
        least: at any time.
        most: at a time.
    """

    least: int
    most: int


def count_of(share: Share, least: int = 1, most: int | None = None) -> Count:
    """Return how many replicas there are on a cluster.

    Args:
        share: of the cluster, that each gets.
        least: at any time.
        most: at a time; as many as there is room for if None. There may be room for fewer yet: machines may come.

    Raises:
        SettingError: the cluster has no room for `least`.
    """
    if share.room < least:
        card = " and a card" if share.cards else ""
        raise SettingError(
            f"replicas must be at most {share.room}, since each gets {counted(share.cores, 'core')}{card} of the "
            f"cluster, got {least}. Ask for fewer, or add machines.",
            "replicas",
        )
    return Count(least, share.room if most is None else most)


class Replicas:
    """The replicas of a station. Any thread may let one judge.

    Args:
        count: of them.
        share: of the cluster, that each gets.
        running: of the backbone.
        heat: makes of a result what people look at; a function that the replicas can import.
        whole_maps: results come with their anomaly map; else without, since it is the largest part of them.
    """

    def __init__(
        self,
        count: Count,
        share: Share,
        running: Running,
        *,
        heat: "Callable[[Result], np.ndarray]",
        whole_maps: bool = False,
    ) -> None:
        self._count, self._share = count, share
        self.at_once = count.most * (_IN_FLIGHT + _WAITING)
        self._how = _How(running, share.cores, max_pixels(), heat, whole_maps)
        self._name = ""
        self._handle: Any = None
        self._is_deployed = False
        self._deployments = 0  # how often they were; what was asked of an earlier one is asked again
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="replicas-watch", daemon=True)
        self._stopping: float | None = None  # since when
        self._seen = self._answered = -math.inf  # when a replica was last there, and answered
        self._sharing = threading.Lock()
        self._shared: dict[str, OrderedDict[str, list[Any]]] = {}  # by a model's name, by its hash: a reference
        self._fault: str | None = None
        self._silent = False  # nothing answered the last time
        self._told = -math.inf  # when it was last told that a replica died

    def start(self, models: Sequence[ServedModel], name: str) -> None:
        """Start them, and wait until the least number is there; to be called in the process's main thread.

        Args:
            models: to open.
            name: of the application in the cluster; one that is there under this name is replaced.

        Raises:
            ClusterError: they cannot be started.
            ModelFileError, BackboneError: a replica cannot use a model.
        """
        serve, self._name = need_serve(), name
        self._is_deployed = True  # or about to be: whatever ends this process now, it is taken back
        try:
            serve.start(proxy_location="Disabled")  # clients speak to the station, and to nothing of Serve's
            self._handle = serve.run(self._application(), name=name, route_prefix=None)
        except (RuntimeError, ValueError, need_ray().exceptions.RayError) as error:
            reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
            raise ClusterError(f"The replicas cannot be started: {reason}. Look at the cluster: ray status.") from None
        slots = self._count.least * _IN_FLIGHT  # so many at the same time, that each replica gets one
        with ThreadPoolExecutor(slots) as asking:
            for model in models:
                list(asking.map(partial(self._answer, _open), [model] * slots))
        self._watcher.start()

    def _application(self) -> Any:
        """Return what Serve deploys."""
        least, most = self._count.least, self._count.most
        scaling: dict[str, Any] = {"num_replicas": least}
        if most > least:
            limits = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": 1}
            scaling = {"autoscaling_config": {**limits, **_SCALING}}
        deployment = need_serve().deployment(
            name=_DEPLOYMENT,
            ray_actor_options={"num_cpus": self._share.cores, "num_gpus": self._share.cards},
            max_ongoing_requests=_IN_FLIGHT,
            health_check_period_s=_HEALTH,
            **scaling,
        )(_Replica)
        return deployment.bind(self._how)

    def judge(self, order: Order) -> "tuple[Result, np.ndarray]":
        """Have a picture judged; if the replica that has it dies, by another.

        Returns:
            The result, its map empty unless whole maps are asked for, and the heat.

        Raises:
            PictureError: it cannot be read.
            ClusterError: no replica answers, or several in turn died over the picture.
            BusyError: the model's file is being replaced, or the station stops and no replica is there any more.
            ModelFileError, BackboneError: a replica cannot use the model.
        """
        answer: tuple[Result, np.ndarray] = self._answer(_judge, order.model, order)
        return answer

    def find_fault(self) -> str | None:
        """Return why nothing can be judged at the moment, in a line; None if it can.

        Only after a failure the replicas are asked, for at most some seconds.
        """
        if self._fault is not None and self._handle is not None:
            with contextlib.suppress(Exception):  # whatever it is, the fault stays
                self._handle.is_there.remote().result(timeout_s=_LOOK)
                self._fault, self._silent = None, False
        return self._fault

    def stop(self) -> None:
        """Say that the station stops: a picture for which no replica is there is refused within seconds."""
        if self._stopping is None:
            self._stopping = time.monotonic()

    def close(self) -> None:
        """End the replicas; nobody may wait for one."""
        self._closed.set()
        if self._watcher.is_alive():
            self._watcher.join(_LOOK)
        if not self._is_deployed:
            return
        self._handle, self._is_deployed = None, False
        with contextlib.suppress(Exception):  # the cluster is gone, and they with it
            need_serve().delete(self._name)

    def _answer(self, ask: "Callable[[Any, _Task], Any]", model: ServedModel, order: Order | None = None) -> Any:
        """Return what a replica answers; another one if it dies.

        Raises:
            TotalRecallError: the answer is one, or there is none.
        """
        ray = need_ray()
        task = _Task(model, self._reference(model), order)
        end, reason = time.monotonic() + (_LITTLE_PATIENCE if self._silent else _PATIENCE), ""
        deaths = 0
        while deaths < _DEATHS:
            try:
                answer = self._waited(ask, task, end)
            except ray.exceptions.RayTaskError as error:
                raise ClusterError(f"A replica failed: {' '.join(str(error.cause).split())[:300]}.") from None
            except TimeoutError:
                self._silent = True
                self._fault = f"No replica has answered for {_PATIENCE:g} s. Look at the cluster: ray status."
                raise ClusterError(self._fault) from None
            except _losses() as error:  # the replica died, or its machine is gone
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
                if isinstance(error, _gone()) and time.monotonic() < end:  # of the application, and no replica's death
                    self._check_hope()
                else:
                    deaths += 1
                    self._say_died(reason)
                time.sleep(_PAUSE)
                continue
            self._answered = time.monotonic()
            if isinstance(answer, TotalRecallError):
                raise answer
            self._fault, self._silent = None, False
            return answer
        self._fault = f"{_DEATHS} replicas in turn died over a picture ({reason}). Look at it, and at the machines."
        raise ClusterError(self._fault)

    def _waited(self, ask: "Callable[[Any, _Task], Any]", task: "_Task", end: float) -> Any:
        """Return an answer; of an application that was deployed again it is asked again.

        Raises:
            TimeoutError: there is none at the end.
            BusyError: the station stops, and none will come.
        """
        self._check_hope()
        deployments, response = self._deployments, ask(self._handle, task)
        while True:
            try:
                return response.result(timeout_s=max(min(end - time.monotonic(), _SLICE), 0.001))
            except TimeoutError:
                if time.monotonic() >= end:
                    raise
            self._check_hope()
            if self._deployments != deployments:
                deployments, response = self._deployments, ask(self._handle, task)

    def _check_hope(self) -> None:
        """Raise BusyError if the station stops and nothing answers any more."""
        if self._stopping is None:
            return
        now = time.monotonic()
        unanswered, unseen = (now - max(self._stopping, last) for last in (self._answered, self._seen))
        if min(unanswered, unseen) > _GIVE_UP or unanswered > _GIVE_UP_AT_LAST:
            raise BusyError("The station is stopping, and no replica answers. Send the picture again when it is back.")

    def _watch(self) -> None:
        """Look after the application until the end; if somebody has removed it, deploy it again."""
        while not self._closed.wait(_WATCH):
            with contextlib.suppress(Exception):  # the next look may find the cluster in order
                self._look_after()

    def _look_after(self) -> None:
        """Look whether a replica is there; if the application is gone, say so, and deploy it again."""
        serve = need_serve()
        try:
            application = serve.status().applications.get(self._name)
        except need_ray().exceptions.ActorDiedError:  # Serve as a whole was ended
            application = None
        if application is not None:
            deployments = application.deployments.values()
            states = [one for deployment in deployments for one in deployment.replica_states.items()]
            if any(state == "RUNNING" and count for state, count in states):
                self._seen = time.monotonic()
            return
        self._fault = "The replicas were removed from the cluster. They are started again."
        if self._stopping is not None:
            return
        _LOG.warning(self._fault)
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(self._application(), name=self._name, route_prefix=None)
        (self._handle,) = serve.run_many([target], wait_for_applications_running=False)
        self._silent = False
        self._deployments += 1

    def _say_died(self, reason: str) -> None:
        """Write into the log that a replica died, once for all the pictures that it had."""
        now = time.monotonic()
        with self._sharing:
            is_told, self._told = now - self._told < _ONE_DEATH, now
        if not is_told:
            _LOG.warning("A replica died, and what it had is judged by another: %s.", reason)

    def _reference(self, model: ServedModel) -> list[Any]:
        """Return the reference of a model in shared memory, in a list, so that Ray passes it on as it is.

        Raises:
            BusyError: the file is another one by now, which the station has not read yet.
        """
        with self._sharing:
            known = self._shared.setdefault(model.name, OrderedDict())
            if model.sha256 not in known:
                known[model.sha256] = [need_ray().put(_read(model))]
                while len(known) > _MODELS_KEPT:
                    known.popitem(last=False)
            return known[model.sha256]


@lru_cache(maxsize=1)
def _losses() -> tuple[type[BaseException], ...]:
    """Return the errors that say that a picture's replica is gone; beside them there are those of what it did."""
    return need_ray().exceptions.RayError, need_serve().exceptions.RayServeException, CancelledError


@lru_cache(maxsize=1)
def _gone() -> tuple[type[BaseException], ...]:
    """Return the error that says that the whole application is gone; older versions of Serve have none."""
    error = getattr(need_serve().exceptions, "DeploymentUnavailableError", None)
    return () if error is None else (error,)


def _read(model: ServedModel) -> "Contents | bytes":
    """Return what the replicas open, of the very file that the station read."""
    try:
        contents = shared_model(model.path)
        if file_sha256(model.path) == model.sha256:
            return contents
    except OSError:  # it is gone for the moment
        pass
    raise BusyError(f"The file of model {model.name} is being replaced. Send the picture again.")


@dataclass(frozen=True, eq=False)
class _Task:
    """What a replica is asked: to open a model, and to judge a picture if there is one."""

    model: ServedModel
    contents: list[Any]
    order: Order | None


def _open(handle: Any, task: _Task) -> Any:
    return handle.open.remote(task)


def _judge(handle: Any, task: _Task) -> Any:
    return handle.judge.remote(task)


# ---------------------------------------------------------------------- replicas


@dataclass(frozen=True, eq=False)
class _How:
    """How every replica judges."""

    running: Running
    cores: int
    pixels: int
    heat: "Callable[[Result], np.ndarray]"
    whole_maps: bool


class _Replica:
    """One process of the cluster; it judges one picture at a time, on the cores that Ray gave it."""

    def __init__(self, how: _How) -> None:
        limit_cores(how.cores)
        limit_heaps(how.cores + 1)  # it works for months
        set_max_pixels(how.pixels)
        warnings.simplefilter("ignore")  # of single pictures: each is told in its answer
        self._how = how
        self._turn = threading.Lock()
        self._judges: dict[str, tuple[str, AnyJudge]] = {}  # by a model's name: its hash and what judges
        self._variants: OrderedDict[tuple[str, float], AnyJudge] = OrderedDict()

    def is_there(self) -> bool:
        """Answer."""
        return True

    def open(self, task: _Task) -> "bool | TotalRecallError":
        """Open a model and judge a grey picture with it; where that fails the error is an answer."""
        try:
            with self._turn, self._alone():
                warm_up(self._opened(task, None))
        except TotalRecallError as error:
            return error
        return True

    def judge(self, task: _Task) -> "tuple[Result, np.ndarray] | TotalRecallError":
        """Judge a picture; an error of ours is an answer, and no dead replica."""
        order = task.order
        assert order is not None
        try:
            with self._turn, self._alone():
                result = self._opened(task, order.rate).predict(order.picture, conditions=order.conditions)
                return self._told(result)
        except TotalRecallError as error:
            return error

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """On one core leave the process's other threads asleep."""
        return on_one_core() if self._how.cores == 1 else contextlib.nullcontext()

    def _told(self, result: "Result") -> "tuple[Result, np.ndarray]":
        heat = self._how.heat(result)
        bare = replace(result, picture=None)  # the station has it, and sends it not to get it back
        return bare if self._how.whole_maps else replace(bare, anomaly_map=_NO_MAP), heat

    def _opened(self, task: _Task, rate: float | None) -> "AnyJudge":
        name, sha256 = task.model.name, task.model.sha256
        known, judge = self._judges.get(name, ("", None))
        if judge is None or known != sha256:
            judge = opened_model(need_ray().get(task.contents[0]), task.model.path, self._running())
            self._judges[name] = sha256, judge
            for old in [one for one in self._variants if one[0] == known]:
                del self._variants[old]
        if rate is None:
            return judge
        variant = self._variants.get((sha256, rate))
        if variant is None:
            variant = self._variants[sha256, rate] = judge.judging(false_alarm_rate=rate)
            while len(self._variants) > _VARIANTS:
                self._variants.popitem(last=False)
        return variant

    def _running(self) -> Running:
        asked = self._how.running
        return Running(engine=asked.engine, device=asked.device, precision=asked.precision, threads=self._how.cores)


_NO_MAP = np.zeros((0, 0), np.float32)
