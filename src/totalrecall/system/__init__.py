"""What the machine is, in one file each: `files`, `memory`, `threads`, `forks` (processes) and `text`."""
