"""What everything stands on: the machine in `files`, `memory`, `threads` and `forks` (processes); `text`; and
`settings`, by which a setting is declared once."""
