"""The same commands, spread over the machines of a Ray cluster; imported only where `--ray` is given.

In reading order: `connection` (joins a cluster, or starts one on this machine).
"""
