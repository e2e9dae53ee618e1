"""Bytes on disk of a package and all that it requires, without Python itself: `installed.py NAME [EXTRA...]`."""

import argparse
import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.peers.measure import tell

__all__ = ["installed_bytes", "required"]


def required(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """Return the distributions that must be there for `name` with its extras, itself included."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [(name, extras)]
    while waiting:
        one, wanted = waiting.pop()
        if (one, wanted) in found:
            continue
        try:
            requirements = distribution(one).requires or []
        except PackageNotFoundError:
            continue  # optional for its dependant, or built into this Python
        found.add((one, wanted))
        for requirement in map(Requirement, requirements):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((requirement.name.lower().replace("_", "-"), tuple(sorted(requirement.extras))))
    return {one for one, _ in found}


def installed_bytes(name: str, extras: tuple[str, ...] = ()) -> int:
    """Return the size of the files of all those distributions; the first counts by its folder, it may be editable."""
    files: set[Path] = set()
    for one in required(name, extras) - {name}:
        files.update(Path(str(file.locate())).resolve() for file in distribution(one).files or [])
    spec = importlib.util.find_spec(name)
    assert spec is not None
    for folder in spec.submodule_search_locations or []:
        files.update(path for path in Path(folder).rglob("*") if "__pycache__" not in path.parts)
    return sum(path.stat().st_size for path in files if path.is_file())


def main() -> None:
    """Print {"installed_mb": ...}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("extras", nargs="*")
    args = parser.parse_args()
    tell({"installed_mb": installed_bytes(args.name, tuple(args.extras)) / 1e6})


if __name__ == "__main__":
    main()
