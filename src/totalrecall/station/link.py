"""What connects the station with a line; the class stands beside `Station`, which it works with."""

from totalrecall.station.station import Link

__all__ = ["Link"]
