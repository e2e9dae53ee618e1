"""Settings, each declared once: its type, its default, what is allowed, and what it means to a person.

A class of settings is a frozen dataclass that inherits from `Checked` and whose fields are made by `setting`:

    @dataclass(frozen=True, kw_only=True)
    class BakerSettings(Checked):
        minutes: int = setting(20, "computing", "how long to bake", metavar="N", rule=minimum(1, "minute"))

All else is made from these fields: the checks (`Checked`), the keywords and the documentation of a constructor
(`takes`), the options of the command line (`cli.options`) and the reference of settings (`docs/generate.py`).
"""

import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from types import UnionType
from typing import Any, Concatenate, ParamSpec, TypeVar, Union, get_args, get_origin

from totalrecall.errors import SettingError

__all__ = [
    "SECTIONS",
    "Checked",
    "Rule",
    "Setting",
    "between",
    "declared",
    "minimum",
    "one_of",
    "setting",
    "takes",
    "with_names",
]

SECTIONS = ("features", "memory bank", "score", "pictures", "threshold", "computing")  # in the order of a reader

Keywords = ParamSpec("Keywords")
Chosen = TypeVar("Chosen")
Made = TypeVar("Made")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
        allowed: in words, as the message continues after "must be".
        test: tells whether a value, which is of the setting's type, is allowed.
        hint: what to do next, in words; a function is given the value.
    """

    allowed: str
    test: Callable[[Any], bool]
    hint: str | Callable[[Any], str] = ""

    def check(self, name: str, value: object) -> None:
        """Raise SettingError, which names the setting, unless the value is allowed."""
        if not self.test(value):
            got = repr(value) if isinstance(value, str) and not value.isdecimal() else _in_words(value)
            hint = self.hint if isinstance(self.hint, str) else self.hint(value)
            raise SettingError(f"{name} must be {self.allowed}, got {got}. {hint}".rstrip(), name)


def minimum(least: int, unit: str = "", hint: str = "") -> Rule:
    """Return the rule of a number that has a lower limit."""
    return Rule(f"at least {least} {unit}".rstrip(), lambda value: value >= least, hint)


def between(least: int, most: int, unit: str, hint: str) -> Rule:
    """Return the rule of a number between two limits, both allowed."""
    return Rule(f"from {least} to {most} {unit}", lambda value: least <= value <= most, hint)


def one_of(choices: Sequence[str]) -> Rule:
    """Return the rule of a name that is one of several."""
    return Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


@dataclass(frozen=True)
class Setting:
    """What is declared of a setting. See `setting`."""

    type: Any  # as the field is annotated
    default: Any
    section: str
    meaning: str
    details: str
    default_means: str
    rule: Rule | None
    metavar: str
    option: bool
    stored: bool

    @property
    def default_in_words(self) -> str:
        """The default as a person reads it; empty for a switch."""
        if self.default_means:
            return self.default_means
        return "" if self.default is None or isinstance(self.default, bool) else _in_words(self.default)

    def sentences(self) -> str:
        """Return the meaning with its details, for a reader of the documentation, who sees the default elsewhere."""
        default = f" (default: {self.default_means})" if self.default_means else ""
        return with_names(f"{self.meaning}{default}. {self.details}".rstrip(), "`{}`".format)


def with_names(text: str, write: Callable[[str], str]) -> str:
    """Return a text in which `{name}`, which refers to a setting, is written in the reader's way."""
    return re.sub(r"\{(\w+)\}", lambda found: write(found[1]), text)


def setting(
    default: Value,
    section: str,
    meaning: str,
    *,
    details: str = "",
    default_means: str = "",
    rule: Rule | None = None,
    metavar: str = "",
    option: bool = True,
    stored: bool = True,
) -> Value:
    """Return a field of a class of settings, for `dataclass`.

    Args:
        default: the value where none is given. None is always allowed where it is the default.
        section: one of `SECTIONS`.
        meaning: what the setting is or does, in words without a full stop. `{other}` refers to another setting; values
            stand in backquotes.
        details: further sentences, for the documentation alone.
        default_means: the default in words, where the value does not say it.
        rule: what else a value must be.
        metavar: what the command line calls a value; a setting that is True or False has none.
        option: whether the command line has it.
        stored: whether it belongs to the settings that a model file keeps.
    """
    if section not in SECTIONS:
        raise ValueError(f"section must be one of {', '.join(SECTIONS)}, got {section!r}.")
    what = Setting(None, default, section, meaning, details, default_means, rule, metavar, option, stored)
    made: Any = field(default=default, compare=stored, metadata={"setting": what})
    return made


def declared(kind: type) -> dict[str, Setting]:
    """Return all settings of a class by name, sorted by section."""
    found = {
        made.name: replace(made.metadata["setting"], type=made.type)
        for made in fields(kind)
        if "setting" in made.metadata
    }
    return dict(sorted(found.items(), key=lambda item: SECTIONS.index(item[1].section)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """Settings that are checked when they are made.

    Raises:
        SettingError: names the setting, the value, what is allowed and what to do next.
    """

    def __post_init__(self) -> None:
        """Check every value by its type and its rule; a list becomes a tuple, so that nobody can change it.

        A class checks what several values must be together after it called this.
        """
        for name, what in declared(type(self)).items():
            given = getattr(self, name)
            if given is None and what.default is None:
                continue
            value = _as_type(given, what.type)
            if value is None:
                raise _not_of_its_type(name, what, given)
            if value is not given:
                object.__setattr__(self, name, value)
            if what.rule is not None:
                what.rule.check(name, value)

    def stored(self) -> dict[str, Any]:
        """Return the settings that a model file keeps, as JSON types."""
        values = {name: getattr(self, name) for name, what in declared(type(self)).items() if what.stored}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_IN_WORDS = {int: "a whole number", float: "a number", bool: "True or False"}


def _options(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one that there is."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _as_type(value: Any, kind: Any) -> Any:
    """Return a value as one of a type that a setting may have, such as 256 for 256.0; None if it is of another one."""
    if isinstance(kind, str):  # names a class that is not imported here; the rule knows it
        return tuple(value) if isinstance(value, list) else value
    if len(_options(kind)) > 1:
        return next((found for one in _options(kind) if (found := _as_type(value, one)) is not None), None)
    if get_origin(kind) is Sequence:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            return None
        items = tuple(_as_type(item, get_args(kind)[0]) for item in value)
        return None if None in items else items
    if kind not in (int, float) or isinstance(value, bool):
        return value if kind is type(value) or (kind is not int and isinstance(value, kind)) else None
    if not isinstance(value, Real) or (kind is int and value != value // 1):
        return None
    return value if isinstance(value, (int, kind)) else kind(value)


def _not_of_its_type(name: str, what: Setting, value: object) -> SettingError:
    kinds = _options(what.type)
    words = [] if str in kinds else [_IN_WORDS[kind] for kind in kinds if kind in _IN_WORDS]
    allowed = [*words, *([what.rule.allowed] if what.rule else [])] or ["text"]
    hint = what.rule.hint if what.rule and isinstance(what.rule.hint, str) else ""
    return SettingError(f"{name} must be {', '.join(allowed)}, got {repr(value)[:80]}. {hint}".rstrip(), name)


def takes(
    settings: Callable[Keywords, Chosen], *, refuse: Callable[[Mapping[str, object]], None] | None = None
) -> Callable[[Callable[[Made, Chosen], None]], Callable[Concatenate[Made, Keywords], None]]:
    """Let a constructor take each setting as a keyword; it is given the settings as one checked object.

    `inspect.signature`, `help` and type checkers see the keywords, and the docstring says what they mean.

    Args:
        settings: the class of settings.
        refuse: called with the keywords before anything is made of them; raises where they are for another class.
    """

    def decorate(initialise: Callable[[Made, Chosen], None]) -> Callable[Concatenate[Made, Keywords], None]:
        known: Any = settings
        names = list(declared(known))

        # A ParamSpec needs both names; each keyword is one that the settings declare, or is refused by name.
        def __init__(self: Made, /, *positional: Keywords.args, **keywords: Keywords.kwargs) -> None:  # noqa: N807
            if refuse is not None:
                refuse(keywords)
            unknown = [name for name in keywords if name not in names]
            if unknown:
                raise TypeError(_unexpected(type(self).__name__, unknown[0], names))
            initialise(self, settings(*positional, **keywords))

        __init__.__doc__ = _documentation(known, initialise.__doc__ or "")
        __init__.__module__, __init__.__qualname__ = initialise.__module__, initialise.__qualname__
        vars(__init__)["__signature__"] = _signature(known)
        return __init__

    return decorate


def _signature(settings: type) -> inspect.Signature:
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=what.default, annotation=what.type)
        for name, what in declared(settings).items()
    ]
    return inspect.Signature([itself, *keywords], return_annotation=None)


def _documentation(settings: type, text: str) -> str:
    """Return a docstring with a section of all arguments, in the form of Google."""
    summary, _, more = inspect.cleandoc(text).partition("\n\n")
    lines = [summary, "", "Args:"]
    for name, what in declared(settings).items():
        entry = f"{name}: {what.sentences()}"
        lines += textwrap.wrap(entry, 116, initial_indent="    ", subsequent_indent="        ")
    return "\n".join([*lines, "", more])


def _unexpected(kind: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{kind}() got an unexpected keyword argument {name!r}.{hint}"


def _in_words(value: object) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value)
