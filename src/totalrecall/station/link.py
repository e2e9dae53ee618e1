"""What connects the station with a line: inputs that bring pictures, and outputs that are told of inspections."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalrecall.station.records import Inspection
    from totalrecall.station.station import Station

__all__ = ["Link"]


class Link:
    """An input, an output or both: a hot folder, a camera, a webhook, MQTT, OPC UA.

    Attributes:
        name: stands in the outbox, and in the log.
    """

    name: str

    def body(self, inspection: "Inspection") -> dict[str, Any] | None:
        """Return what is to be delivered of an inspection, or None.

        It is written into the outbox within the transaction that holds the inspection, so that no delivery is lost when
        the process is killed.
        """
        del inspection
        return None

    def told(self, inspection: "Inspection") -> None:
        """Take in an inspection that is committed. It must not wait: the thread writes the history."""

    def start(self, station: "Station") -> None:
        """Begin to work; called once, after the models are loaded."""

    def close(self) -> None:
        """Finish what is in hand and stop."""
