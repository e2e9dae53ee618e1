"""A model in the workers of a cluster: read once, held once a machine in shared memory, opened in each worker."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.engines import Running
from totalrecall.registry import detector_of, is_exported, load_judge, read_model

if TYPE_CHECKING:
    from totalrecall.detectors.model_file import Contents
    from totalrecall.registry import AnyJudge

__all__ = ["opened_model", "shared_model"]


def shared_model(path: str | Path) -> "Contents | bytes":
    """Return what the workers of a machine hold once, in shared memory: a model's tensors, or an exported graph.

    Raises:
        ModelFileError: the file cannot be used.
    """
    return Path(path).read_bytes() if is_exported(path) else read_model(path)


def opened_model(contents: "Contents | bytes", path: str | Path, running: Running) -> "AnyJudge":
    """Return what judges, of contents that `shared_model` read.

    Args:
        contents: header and tensors, or the graph.
        path: of the file, for the messages.
        running: of the backbone.

    Raises:
        ModelFileError, BackboneError: it cannot be used here.
    """
    if not isinstance(contents, bytes):
        return detector_of(contents, path, running)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "model.onnx")
        copy.write_bytes(contents)
        return load_judge(copy, **running.chosen())
