"""Speed and memory, each benchmark asserting the answer too.

A benchmark prints a ratio against a named baseline of the same run, and adds its rows, with machine and versions, to
results/*.csv.
"""

import totalrecall  # noqa: F401  before NumPy, as a program of one's own would: see `totalrecall.system.threads`
