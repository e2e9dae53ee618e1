"""The inspection station: fitted models as a service that a production line can rely on.

One process: HTTP on an event loop, pictures judged by threads, the history written by one thread in grouped
transactions. Every input goes through `Station.submit`; every output gets inspections that are committed.

In reading order: `settings` (what `serve` is told), `station` (where all meets, and the links with a line begin),
`camera_source` (what names a camera), `thresholds` (one that a person sets), `drawing` (pictures for people), `app`
(all routes behind the guard), `serving` (the process).

Folders: `store` (what it remembers), `access` (who may call what), `judging` (from bytes to a verdict), `quality`
(teaching, golden check, studies, recipes), `links` (inputs and outputs of a line), `web` (HTTP), `pages` (what people
see and do). Each folder's own docstring names its files in reading order.
"""
