"""The address space of the OPC UA server: its objects, variables and methods."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalrecall.station.store.records import Inspection

__all__ = ["NAMESPACE", "Nodes", "make_nodes"]

NAMESPACE = "urn:totalrecall:station"

_RESULT = {  # variables of the latest result, with their types
    "JobId": "String",
    "MeasId": "String",
    "PartId": "String",
    "RecipeId": "String",
    "Verdict": "String",
    "IsAnomalous": "Boolean",
    "Score": "Double",
    "Threshold": "Double",
    "CreationTime": "DateTime",
    "Message": "String",
    "Result": "String",  # all of it, as JSON
    "ResultId": "String",  # written last
}


@dataclass(frozen=True)
class Nodes:
    """The variables by their names, and how they are written."""

    variables: dict[str, tuple[Any, Any]]  # node and type

    async def write(self, name: str, value: Any) -> None:
        """Write a variable; None where there is no value."""
        from asyncua import ua

        node, kind = self.variables[name]
        if kind == ua.VariantType.LocalizedText:
            value = ua.LocalizedText(value)
        # subtle: a missing number must not look like one: its quality is bad, whatever the value
        status = ua.StatusCodes.BadNoData if value is None else ua.StatusCodes.Good
        variant = ua.Variant(_NOTHING.get(kind.name) if value is None else value, kind)
        now = datetime.now(timezone.utc)
        await node.write_value(ua.DataValue(variant, ua.StatusCode(status), SourceTimestamp=now))

    async def show(self, inspection: "Inspection", job: str) -> None:
        """Show an inspection as the latest result."""
        facts = inspection.to_json()
        values = {
            "JobId": job,
            "MeasId": inspection.name,
            "PartId": inspection.serial or "",
            "RecipeId": inspection.product or inspection.model,
            "Verdict": inspection.verdict,
            "IsAnomalous": inspection.is_anomalous,
            "Score": facts["score"],
            "Threshold": facts["threshold"],
            "CreationTime": inspection.at,
            "Message": inspection.error or "",
            "Result": json.dumps(facts, ensure_ascii=False),
            "ResultId": inspection.key,
        }
        for name, value in values.items():
            await self.write(name, value)


_NOTHING: dict[str, Any] = {"Boolean": False, "Double": 0.0}


async def make_nodes(
    server: Any,
    start_single_job: Callable[[str, str, bytes], Awaitable[tuple[str, int, str]]],
    prepare_recipe: Callable[[str], Awaitable[tuple[int, str]]],
    result_by_job: Callable[[str], Awaitable[tuple[bool, str, int, str]]],
) -> Nodes:
    """Make the address space of a server."""
    from asyncua import ua

    types = ua.VariantType
    space = await server.register_namespace(NAMESPACE)
    system = await server.nodes.objects.add_object(space, "VisionSystem")
    machine = await system.add_object(space, "VisionStateMachine")
    automatic = await machine.add_object(space, "AutomaticModeStateMachine")
    recipes = await system.add_object(space, "RecipeManagement")
    results = await system.add_object(space, "ResultManagement")
    latest = await results.add_object(space, "LatestResult")

    variables: dict[str, tuple[Any, Any]] = {}

    async def add(parent: Any, name: str, kind: Any, value: Any, key: str) -> None:
        variables[key] = (await parent.add_variable(space, name, value, kind), kind)

    await add(machine, "CurrentState", types.LocalizedText, ua.LocalizedText("Preoperational"), "VisionState")
    await add(automatic, "CurrentState", types.LocalizedText, ua.LocalizedText("Initialized"), "AutomaticState")
    await add(recipes, "ActiveRecipe", types.String, "", "ActiveRecipe")
    await add(recipes, "Recipes", types.String, [], "Recipes")
    nodes = Nodes(variables)
    for name, kind in _RESULT.items():
        await add(latest, name, types[kind], "" if kind == "String" else _NOTHING.get(kind), name)
        if kind != "String":
            await nodes.write(name, None)

    await automatic.add_method(
        space,
        "StartSingleJob",
        _method(start_single_job, str, str, bytes),
        [_argument("MeasId", "String"), _argument("PartId", "String"), _argument("Picture", "ByteString")],
        [_argument("JobId", "String"), _argument("Error", "Int32"), _argument("Message", "String")],
    )
    await recipes.add_method(
        space,
        "PrepareRecipe",
        _method(prepare_recipe, str),
        [_argument("RecipeId", "String")],
        [_argument("Error", "Int32"), _argument("Message", "String")],
    )
    await results.add_method(
        space,
        "GetResultByJobId",
        _method(result_by_job, str),
        [_argument("JobId", "String")],
        [
            _argument("IsComplete", "Boolean"),
            _argument("Result", "String"),
            _argument("Error", "Int32"),
            _argument("Message", "String"),
        ],
    )
    return nodes


def _argument(name: str, kind: str) -> Any:
    from asyncua import ua

    return ua.Argument(Name=name, DataType=ua.NodeId(getattr(ua.ObjectIds, kind)), ValueRank=-1)


def _method(function: Callable[..., Awaitable[tuple[Any, ...]]], *wanted: type) -> Any:
    """Return a function as the server calls it: variants in, variants out, of the types that they are declared with."""
    from asyncua import ua

    count = len(wanted)
    kinds = {bool: ua.VariantType.Boolean, int: ua.VariantType.Int32, str: ua.VariantType.String}

    async def called(_parent: Any, *arguments: Any) -> Any:
        texts = [_value(argument) for argument in arguments]
        if len(texts) != count or not all(isinstance(text, kind) for text, kind in zip(texts, wanted, strict=True)):
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        return [ua.Variant(value, kinds[type(value)]) for value in await function(*texts)]

    return called


def _value(argument: Any) -> Any:
    """Return what a variant holds; a missing text or picture is an empty one."""
    if argument.Value is None:
        return b"" if argument.VariantType.name == "ByteString" else ""
    return argument.Value
