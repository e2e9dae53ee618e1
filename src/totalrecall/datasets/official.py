"""What is published about a set: where it is had, its licence, and how many pictures each category should have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from totalrecall.datasets.base import Sample

__all__ = ["Counts", "SetInfo", "count", "count_warnings"]


@dataclass(frozen=True)
class Counts:
    """Pictures of a category: good ones to fit on, good and anomalous ones to test on, good ones to validate on."""

    train: int
    good: int
    bad: int
    validation: int = 0

    @property
    def total(self) -> int:
        """All pictures together."""
        return self.train + self.validation + self.good + self.bad


@dataclass(frozen=True)
class SetInfo:
    """A published set. `counts` goes by category, in the official order; it is empty where nothing is published."""

    layout: str
    title: str
    page: str
    licence: str
    counts: Mapping[str, Counts] = field(default_factory=dict)
    note: str = ""

    @property
    def total(self) -> Counts:
        """The counts of all categories together."""
        every = self.counts.values()
        return Counts(
            train=sum(c.train for c in every),
            good=sum(c.good for c in every),
            bad=sum(c.bad for c in every),
            validation=sum(c.validation for c in every),
        )


def count(samples: Sequence[Sample]) -> Counts:
    """Return how many samples there are of each kind."""
    kinds = Counter((sample.split, sample.label) for sample in samples)
    return Counts(kinds["train", 0], kinds["test", 0], kinds["test", 1], kinds["validation", 0])


def count_warnings(info: SetInfo, category: str, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return one line where a category of an official name has not the official number of pictures."""
    official = info.counts.get(category)
    found = count(samples)
    if official is None or found == official:
        return ()
    kinds = (
        ("to fit on", found.train, official.train),
        ("to validate on", found.validation, official.validation),
        ("good to test on", found.good, official.good),
        ("anomalous", found.bad, official.bad),
    )
    wrong = ", ".join(f"{have} {kind} in place of {want}" for kind, have, want in kinds if have != want)
    return (
        f"The pictures of {category} are not as many as in the official {info.title}: {wrong}. "
        "Download it again, unless this set is your own.",
    )
