"""The checker that the test run puts on every function: a whole number will do where a float is asked for (PEP 484).

jaxtyping's own decorator binds the arguments of each call to the signature, twice; that took half of a test run. Ours
asks beartype alone, and opens a scope for the names of axes where the signature has arrays.
"""

import functools
import inspect
import types
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def checked(function=None, *, typechecker=check):
    """Return the function or the class with its types checked at each call; in place of `jaxtyping.jaxtyped`."""
    if function == "context":
        return _jaxtyped("context")
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(function):
        if "__dataclass_fields__" in vars(function) and "__init__" in vars(function):
            function.__init__ = checked(function.__init__, typechecker=typechecker)
        return function
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(checked(function.__func__, typechecker=typechecker))
    if not inspect.isfunction(function):
        return _jaxtyped(function, typechecker=typechecker)
    if "<locals>" in function.__qualname__ and function.__name__ != "__init__":
        return function  # it is defined anew at each call of what it stands in, and would be wrapped anew
    hints, function.__annotations__ = function.__annotations__, _resolved(function)
    arrays = any(map(_names_axes, function.__annotations__.values()))
    if arrays and inspect.isgeneratorfunction(function):
        wrapped = _jaxtyped(function, typechecker=typechecker)
    else:
        wrapped = _with_scope(typechecker(function)) if arrays else typechecker(function)
    function.__annotations__ = wrapped.__annotations__ = hints
    return wrapped


def _resolved(function):
    """Return the function's annotations as types; Any where a name is there for mypy alone."""
    resolved = {}
    for name, hint in function.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: hint})
        try:
            resolved |= typing.get_type_hints(alone, function.__globals__, include_extras=True)
        except Exception:
            resolved[name] = typing.Any
    return resolved


def _names_axes(hint):
    """Return whether a type is one of jaxtyping's arrays, or holds one."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = typing.get_args(hint)
    return any(_names_axes(part) for part in parts if not isinstance(part, str))


def _with_scope(function):
    """Return the function with a scope for the names of its axes: those of the caller mean other sizes."""

    @functools.wraps(function)
    def scoped(*args, **kwargs):
        with _jaxtyped("context"):
            return function(*args, **kwargs)

    return scoped


jaxtyping.jaxtyped = checked
