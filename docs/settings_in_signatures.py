"""An extension of griffe, which mkdocstrings reads the source by: a constructor that `takes` settings shows them all.

Griffe only reads the source; the keywords and their documentation are made when the class is.
"""

import inspect
from typing import Any

import griffe

from totalrecall.registry import JOINED, KINDS, detector_class


class SettingsInSignatures(griffe.Extension):
    """Give each detector's constructor the keywords and the docstring that Python shows."""

    def on_class(self, *, cls: griffe.Class, **rest: Any) -> None:  # noqa: ARG002  what griffe calls it with
        """Replace the constructor of a detector as it was read."""
        kind = next((kind for kind, path in {**KINDS, **JOINED}.items() if cls.path == f"totalrecall.{path}"), None)
        if kind is None:
            return
        made = detector_class(kind).__init__
        keywords = [
            griffe.Parameter(
                name,
                annotation=_annotation(keyword.annotation),
                kind=griffe.ParameterKind.keyword_only,
                default=repr(keyword.default),
            )
            for name, keyword in inspect.signature(detector_class(kind)).parameters.items()
        ]
        constructor = cls.members["__init__"]
        itself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_only)
        constructor.parameters = griffe.Parameters(itself, *keywords)
        constructor.docstring = griffe.Docstring(inspect.getdoc(made) or "", parser="google", parent=constructor)
        constructor.decorators = []


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("collections.abc.", "")
