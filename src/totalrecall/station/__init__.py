"""The inspection station: fitted models as a service that a production line can rely on.

One process: HTTP on an event loop, pictures judged by threads, the history written by one thread in grouped
transactions. Every input goes through `Station.inspect`; every output gets inspections that are committed.
"""
