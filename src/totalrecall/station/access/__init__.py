"""Who may call what, and from where.

In reading order: `user_names` and `passwords` (which are allowed), `tokens` (of machines), `sessions` and `users` (of
people), `throttle` and `logins` (against guessing), `policy` (from where a station may be called), `permissions` (one
table from routes to roles), `guard_head`, `guard_body` and `guard` (before every route), `connections` (with patience,
but not without end), `log_lines` (what the server writes
down), `certificate` (of TLS, and when it ends).
"""
