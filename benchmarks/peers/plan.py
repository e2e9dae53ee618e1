"""The pictures of a comparison: the same files in the same order for both sides, as JSON for their processes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Plan", "TestPicture", "read_plan"]


@dataclass(frozen=True)
class TestPicture:
    """A labelled picture: 0 good, 1 anomalous; `mask` marks the defect, None where there is none or it is unknown."""

    path: str
    label: int
    mask: str | None


@dataclass(frozen=True)
class Plan:
    """What is fitted on, tested on and streamed.

    Attributes:
        name: of the data set.
        train: folder of links to the pictures to fit on; their names sort in the order of the split.
        test: labelled pictures.
        jpegs: folder of JPEG files for the throughput.
    """

    name: str
    train: str
    test: tuple[TestPicture, ...]
    jpegs: str

    def train_paths(self) -> list[str]:
        """Return the pictures to fit on, in order."""
        return [str(path) for path in sorted(Path(self.train).iterdir())]

    def jpeg_paths(self) -> list[str]:
        """Return the JPEG files, in order."""
        return [str(path) for path in sorted(Path(self.jpegs).iterdir())]

    def spread(self, count: int) -> list[str]:
        """Return some of the pictures to test on, good and anomalous ones."""
        return [self.test[i * len(self.test) // count].path for i in range(count)]

    def write(self, path: Path) -> None:
        """Write it for `read_plan`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_plan(path: str | Path) -> Plan:
    """Return what `Plan.write` wrote."""
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    values["test"] = tuple(TestPicture(**picture) for picture in values["test"])
    return Plan(**values)
