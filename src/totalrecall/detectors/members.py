"""A model file that holds several models, its members: how their headers and tensors lie in it.

`members` in the header is a list with what a plain model would say of each; the pictures and the region of interest
stand once for all. The tensors of member N begin with `members.N.`. A backbone's graph stands once, with the first
member that has it; that of the first member is the file's own `backbone.graph`.
"""

from collections.abc import Mapping, Set
from typing import Any, TypeVar

__all__ = ["KIND", "MOST", "apart", "checked_members", "graph_name", "together"]

KIND = "joined"  # in the header of such a file
MOST = 16  # members
_PREFIX = "members."
_OWN = {"settings", "recipe", "backbone", "calibration", "search", "coreset"}  # of a header: what a member says itself
_NEEDED = {"settings", "recipe", "backbone"}
_DIFFER = {"settings": {"backbone", "layers", "patch_size", "false_alarm_rate"}, "recipe": {"size"}}  # by member
_SHARED = ("recipe.roi",)  # tensors
_GRAPH = "backbone.graph"

Tensor = TypeVar("Tensor")  # itself, or its type and shape


def graph_name(member: int) -> str:
    """Return the name of the tensor that holds the graph of a member's backbone, if no earlier one has the same."""
    return f"{_PREFIX}{member}.{_GRAPH}" if member else _GRAPH


def checked_members(header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the header of a file says of each member.

    Raises:
        ValueError: it is no such list; says what is wrong.
    """
    members = header.get("members")
    if not isinstance(members, list) or not 2 <= len(members) <= MOST:
        raise ValueError(f"members is missing or no list of 2 to {MOST}")
    for at, said in enumerate(members):
        if not isinstance(said, dict) or not _NEEDED <= said.keys() <= _OWN:
            raise ValueError(f"members[{at}] is no model's header")
        if not isinstance(said["backbone"], dict):
            raise ValueError(f"members[{at}].backbone is missing or no JSON object")
        for part, differ in _DIFFER.items():
            alike = _without(header.get(part), differ) == _without(said[part], differ)
            # of the first member the file says all twice, but for the rate, which the joined threshold has its own of
            differ = differ & {"false_alarm_rate"}
            if not alike or (not at and _without(header.get(part), differ) != _without(said[part], differ)):
                raise ValueError(f"members[{at}].{part} is not as in {part}")
    if members[0]["backbone"] != header.get("backbone"):
        raise ValueError("members[0].backbone is not as in backbone")
    return members


def _without(facts: Any, names: Set[str]) -> Any:
    return {name: value for name, value in facts.items() if name not in names} if isinstance(facts, dict) else facts


def apart(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[list[tuple[dict[str, Any], dict[str, Tensor]]], dict[str, Tensor]]:
    """Return header and tensors of each member, as a plain model file has them, and the tensors that are no member's.

    Raises:
        ValueError: the header lists no members.
    """
    members = checked_members(header)
    parts: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
    rest = dict(tensors)
    shared = {name: tensors[name] for name in _SHARED if name in tensors}
    graphs = {str(members[0]["backbone"].get("sha256")): tensors[_GRAPH]} if _GRAPH in tensors else {}
    for at, said in enumerate(members):
        prefix = f"{_PREFIX}{at}."
        own = {name.removeprefix(prefix): rest.pop(name) for name in tensors if name.startswith(prefix)}
        digest = str(said["backbone"].get("sha256"))
        if _GRAPH in own:
            graphs.setdefault(digest, own[_GRAPH])
        elif digest in graphs:
            own[_GRAPH] = graphs[digest]
        plain = {**said, "kind": "patchcore", "library": header.get("library"), "pictures": header.get("pictures")}
        parts.append((plain, {**shared, **own}))
    return parts, rest


def together(parts: "list[tuple[dict[str, Any], dict[str, Tensor]]]") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a file must hold of its members, from header and tensors of each, without the backbones' graphs."""
    members = [{name: value for name, value in header.items() if name in _OWN} for header, _ in parts]
    tensors = {
        f"{_PREFIX}{at}.{name}": tensor
        for at, (_, own) in enumerate(parts)
        for name, tensor in own.items()
        if name not in _SHARED
    }
    return {"members": members}, tensors
