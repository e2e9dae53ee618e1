"""What each worker gets of a cluster, cores or a card with its part of them, and how many workers have room."""

from collections.abc import Sequence
from dataclasses import dataclass

from totalrecall.cluster.connection import need_ray
from totalrecall.errors import SettingError
from totalrecall.system.text import counted

__all__ = ["Share", "share_of"]


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        cores: of a processor.
        cards: for the backbone, 0 or 1.
        room: workers at a time that the cluster has room for.
    """

    cores: int
    cards: int
    room: int


def share_of(device: str | None, threads: int | None, workers: int | None = None, *, each: str = "cell") -> Share:
    """Return what each worker gets of the cluster that is connected.

    On the processor: as many cores as threads, one if not given. On any other device: a card, which Ray knows as a GPU,
    and the cores of its machine, divided by its cards.

    Args:
        device: that the backbone runs on; the processor if not given.
        threads: that it computes with.
        workers: at a time, at most.
        each: what a worker is, for messages.

    Raises:
        SettingError: no machine has so much, or the device has a number.
    """
    machines = [node["Resources"] for node in need_ray().nodes() if node["Alive"]]
    if device is None or device.lower() == "cpu":
        cores, cards = threads or 1, 0
        room = sum(int(has.get("CPU", 0)) // cores for has in machines)
        if not room:
            most = max(int(has.get("CPU", 0)) for has in machines)
            raise SettingError(
                f"threads must be at most the {counted(most, 'core')} of a machine of the cluster, got {cores}: each "
                f"{each} gets so many.",
                "threads",
            )
    else:
        cores, room = _of_cards(device, machines, each)
        cards = 1
    return Share(cores, cards, room if workers is None else min(room, workers))


def _of_cards(device: str, machines: Sequence[dict[str, float]], each: str) -> tuple[int, int]:
    """Return the cores that go with a card, and how many cards there are."""
    if any(letter in device for letter in ":."):
        raise SettingError(
            f"device must be without a number on a cluster, got {device}: Ray gives each {each} a card of its own, the "
            "only one that it sees.",
            "device",
        )
    with_cards = [has for has in machines if has.get("GPU", 0) >= 1 and has.get("CPU", 0) >= 1]
    if not with_cards:
        raise SettingError(
            f"device {device} needs a card for each {each}, and Ray knows of none in this cluster. Start its machines "
            "with `ray start --num-gpus N`, or leave --device out.",
            "device",
        )
    cores = min(max(int(has["CPU"] // has["GPU"]), 1) for has in with_cards)
    return cores, sum(min(int(has["GPU"]), int(has["CPU"]) // cores) for has in with_cards)
