"""The Open Inference Protocol v2, so that clients of KServe and Triton work unchanged.

A model takes one input: `picture`, the bytes of picture files (BYTES, shape [n]), or `pixels`, RGB of uint8 (UINT8,
shape [h, w, 3] or [n, h, w, 3]). Pixels are turned to PNG, which loses nothing, and go the same road as every picture,
so that the score is that of `predict`. Tensors come as JSON or, behind the JSON, in the binary form of Triton's
extension; they go back as they were asked for.
"""

import asyncio
import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import cv2
import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from totalrecall._version import __version__
from totalrecall.errors import SettingError
from totalrecall.station.judging.caption import LONGEST_NAME, Caption
from totalrecall.station.store.records import Inspection
from totalrecall.station.web.answers import BINARY, NAME, REFUSALS
from totalrecall.station.web.problems import problem

if TYPE_CHECKING:
    from totalrecall.station.station import Station

__all__ = ["router"]

_LENGTH = "inference-header-content-length"
_OUTPUTS: dict[str, tuple[str, Callable[[Inspection], Any]]] = {
    "score": ("FP64", lambda one: _number(one.score)),
    "threshold": ("FP64", lambda one: _number(one.threshold)),
    "p_value": ("FP64", lambda one: _number(one.p_value)),
    # as of an exported graph: a missing verdict is no "good", and BOOL could not say so
    "is_anomalous": ("INT64", lambda one: {None: -1, False: 0, True: 1}[one.is_anomalous]),
    "verdict": ("BYTES", lambda one: one.verdict),
    "id": ("BYTES", lambda one: one.key),
}
_INFER = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {"type": "array", "minItems": 1, "maxItems": 1},
                        "outputs": {"type": "array"},
                    },
                }
            },
            "application/octet-stream": {"schema": BINARY},
        },
    }
}


@dataclass(frozen=True)
class _Wanted:
    name: str
    binary: bool


def router(station: "Station") -> APIRouter:
    """Return the routes, bound to a station."""
    routes = APIRouter(prefix="/v2", tags=["v2"])

    @routes.get("", summary="The server", responses=REFUSALS)
    async def server() -> dict[str, Any]:
        return {"name": "totalrecall", "version": __version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live", summary="Does it run?", responses=REFUSALS)
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/health/ready", summary="Can it judge?", responses=REFUSALS)
    async def ready() -> Response:
        return _readiness(station.ready.is_set())

    @routes.get("/models/{name}", summary="What a model takes and gives", responses=REFUSALS)
    async def model(name: Annotated[str, NAME]) -> dict[str, Any]:
        loaded = station.shelf.get(name)
        return {
            "name": loaded.name,
            "versions": [loaded.sha256[:16]],
            "platform": "totalrecall",
            "inputs": [
                {"name": "picture", "datatype": "BYTES", "shape": [-1]},
                {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            ],
            "outputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, (kind, _) in _OUTPUTS.items()],
        }

    @routes.get("/models/{name}/ready", summary="Can a model judge?", responses=REFUSALS)
    async def model_ready(name: Annotated[str, NAME]) -> Response:
        loaded = station.shelf.get(name)
        return _readiness(station.ready.is_set() and loaded.name not in station.holds)

    @routes.post("/models/{name}/infer", summary="Judge pictures", openapi_extra=_INFER, responses=REFUSALS)
    async def infer(request: Request, name: Annotated[str, NAME]) -> Response:
        station.shelf.get(name)
        head, rest = _parts(await request.body(), request.headers.get(_LENGTH))
        wanted = _wanted(head)
        pictures = await run_in_threadpool(_pictures, head, rest, station.settings.batch)
        named = str(head.get("id") or "v2")[:LONGEST_NAME]
        waited = station.submit_all(pictures, Caption(model=name, name=named, source="v2"))
        outcomes = await asyncio.gather(*map(asyncio.wrap_future, waited), return_exceptions=True)
        inspections: list[Inspection] = []
        for outcome in outcomes:  # the protocol answers all of them, or none
            if isinstance(outcome, BaseException):
                raise outcome
            inspections.append(outcome)
        return _answer(head, inspections[0].model_sha256[:16], name, wanted, inspections)  # it may have been replaced

    return routes


def _readiness(ready: bool) -> Response:
    if not ready:
        return problem(503, "It is not ready.", headers={"Retry-After": "1"})
    return Response(json.dumps({"ready": True}), 200, media_type="application/json")


def _parts(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON of a request, and the binary tensors behind it.

    Raises:
        SettingError: it is no JSON object, or its length is not as the header says.
    """
    at = len(body)
    if length is not None:
        if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):
            raise SettingError(f"{_LENGTH} must be at most the body's {len(body)} bytes, got {length[:40]!r}.")
        at = int(length)
    try:
        head = json.loads(body[:at])
    except (ValueError, RecursionError):
        raise SettingError("The request must be JSON of the Open Inference Protocol v2.") from None
    if not isinstance(head, dict):
        raise SettingError(f"The request must be a JSON object, got {type(head).__name__}.")
    return head, body[at:]


def _wanted(head: dict[str, Any]) -> list[_Wanted]:
    """Return which outputs a request asks for; all of them as JSON if it does not say.

    Raises:
        SettingError: one is unknown.
    """
    every = isinstance(head.get("parameters"), dict) and head["parameters"].get("binary_data_output") is True
    asked = head.get("outputs")
    if asked is None or asked == []:
        return [_Wanted(name, every) for name in _OUTPUTS]
    if not isinstance(asked, list):
        raise SettingError("outputs must be a list of objects with a name.")
    wanted = []
    for one in asked:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in _OUTPUTS:
            raise SettingError(f"An output must be one of {', '.join(_OUTPUTS)}, got {str(name)[:80]!r}.")
        parameters = one.get("parameters")
        binary = parameters.get("binary_data", every) if isinstance(parameters, dict) else every
        wanted.append(_Wanted(name, binary is True))
    return wanted


def _pictures(head: dict[str, Any], rest: bytes, most: int) -> list[bytes]:
    """Return the files of the pictures that a request holds.

    Raises:
        SettingError: the input is missing, unknown, of another type or size than it says, or holds too many.
    """
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise SettingError("A request has one input: picture (BYTES) or pixels (UINT8).")
    tensor = inputs[0]
    name, kind, shape = tensor.get("name"), tensor.get("datatype"), _shape(tensor.get("shape"))
    size = _binary_size(tensor)
    if size is not None and size != len(rest):
        raise SettingError(f"binary_data_size must be the {len(rest)} bytes behind the JSON, got {size}.")
    data = rest if size is not None else tensor.get("data")
    if name == "picture" and kind == "BYTES" and len(shape) == 1:
        count = shape[0]
        _check_count(count, most)
        return _files(data, count)
    if name == "pixels" and kind == "UINT8" and len(shape) in (3, 4) and shape[-1] == 3:
        h, w = shape[-3:-1]
        count = shape[0] if len(shape) == 4 else 1
        _check_count(count, most)
        values = _values(data, math.prod(shape))
        return [_png(picture) for picture in values.reshape(count, h, w, 3)]
    raise SettingError(
        "The input must be picture of BYTES with shape [n], or pixels of UINT8 with shape [h, w, 3] or [n, h, w, 3], "
        f"got {str(name)[:40]!r} of {str(kind)[:40]!r} with shape {shape[:8]}."
    )


def _shape(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(one) is int and 0 < one < 1 << 20 for one in value):
        raise SettingError("shape must be a list of numbers from 1.")
    return value


def _binary_size(tensor: dict[str, Any]) -> int | None:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None and type(size) is not int:
        raise SettingError("binary_data_size must be a number of bytes.")
    return size


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise SettingError(f"A request may hold {most} pictures, got {count}.")


def _files(data: Any, count: int) -> list[bytes]:
    """Return the elements of a BYTES tensor: binary, each behind its length; or as JSON, base64."""
    if isinstance(data, bytes):
        files: list[bytes] = []
        at = 0
        while at < len(data):
            begin = at + 4
            at = begin + int.from_bytes(data[at:begin], "little")
            if at > len(data):
                raise SettingError("An element of the BYTES tensor is longer than the tensor.")
            if len(files) == count:  # millions of empty ones may follow
                raise SettingError(f"The shape says {count} pictures, and the data holds more.")
            files.append(data[begin:at])
    else:
        if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
            raise SettingError("The data of BYTES in JSON must be a list of texts, base64 of picture files.")
        try:
            files = [base64.b64decode(one, validate=True) for one in data]
        except (binascii.Error, ValueError):
            raise SettingError("The data of BYTES in JSON must be base64 of picture files.") from None
    if len(files) != count:
        raise SettingError(f"The shape says {count} pictures, and the data holds {len(files)}.")
    return files


def _values(data: Any, count: int) -> np.ndarray:
    """Return the elements of a UINT8 tensor (count,)."""
    if isinstance(data, bytes):
        values = np.frombuffer(data, np.uint8)
    else:
        try:
            given = np.asarray(data)
        except (ValueError, TypeError, OverflowError):
            raise SettingError("The data of UINT8 must be numbers from 0 to 255.") from None
        if given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() > 255):
            raise SettingError("The data of UINT8 must be numbers from 0 to 255.")
        values = given.ravel().astype(np.uint8)
    if len(values) != count:
        raise SettingError(f"The shape says {count} numbers, and the data holds {len(values)}.")
    return values


def _png(pixels: np.ndarray) -> bytes:
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _answer(
    head: dict[str, Any], version: str, model: str, wanted: list[_Wanted], inspections: list[Inspection]
) -> Response:
    """Return the outputs, as JSON or behind it."""
    outputs, tensors = [], []
    for one in wanted:
        kind, read = _OUTPUTS[one.name]
        values = [read(inspection) for inspection in inspections]
        output: dict[str, Any] = {"name": one.name, "datatype": kind, "shape": [len(values)]}
        if one.binary:
            tensors.append(_packed(kind, values))
            output["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            output["data"] = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        outputs.append(output)
    body: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if isinstance(head.get("id"), str):
        body["id"] = head["id"]
    text = json.dumps(body).encode()
    if not tensors:
        return Response(text, media_type="application/json")
    return Response(
        text + b"".join(tensors),
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(len(text))},
    )


def _packed(kind: str, values: list[Any]) -> bytes:
    if kind == "BYTES":
        texts = [str(value).encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(values, np.dtype("<f8" if kind == "FP64" else "<i8")).tobytes()
