"""The inspection station: fitted models as a service that a production line can rely on.

One process: HTTP on an event loop, pictures judged by threads, the history written by one thread in grouped
transactions. Every input goes through `Station.inspect`; every output gets inspections that are committed.

A picture's way, in reading order: `settings` (what `serve` is told), `models` (files by name, replaced while it runs),
`inspecting` (who waits, who judges), `station` (where all meets), `recent` and `drawing` (what the page shows),
`watching` (drift), `link` (what connects it with a line), `metrics` (for Prometheus).

HTTP: `sent` (pictures out of requests), `jobs`, `api_v1`, `api_v2` (the Open Inference Protocol), `problems` (errors),
`app` (all routes), `serving` (the process).

The history, in reading order: `records` (an inspection, an actor, a filter), `tables` and `migrations` (what the
database holds), `addresses` (of databases), `chain` (rows that are hashed with the one before), `schema` (are the
tables ours, and of today?), `database` (one writer, many readers), `trail` (who changed what), `history` (every
inspection), `kept` (pictures within a budget).

What keeps an inspection good: `services` (the station as these see it), `workers` (long work in child processes),
`teaching` and `comparing` (judged pictures to an approved version), `golden` (known pictures come out as recorded),
`recipes` (products), `stranger` (wrong products), `fitting` (models from uploaded pictures), `labelled` (parts whose
truth is known), `agreement` (shares and kappa), `study`, `study_page` and `studies` (gauge studies), `evidence` (the
sheet of a model), `api_quality` (all of it by HTTP).

Who may call what: `user_names` and `passwords` (which are allowed), `tokens` (of machines), `sessions` and `users` (of
people), `throttle` and `logins` (against guessing), `policy` (from where a station may be called), `permissions` (one
table from routes to roles), `guard_head`, `guard_body` and `guard` (before every route), `connections` (with patience,
but not without end), `api_users` (login, users and tokens by HTTP).

What people see and do: `pages` (every view), `thresholds` (one that a person sets).
"""
