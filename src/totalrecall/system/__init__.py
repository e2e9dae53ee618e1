"""What everything stands on: the machine in `files`, `memory` and `threads` (forks too); `text`; and `settings`.

`settings` is where a setting is declared once.
"""
