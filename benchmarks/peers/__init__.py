"""Total Recall beside other implementations of PatchCore, each in an environment of its own; see README.md.

__main__.py   runs the two in turn, checks that they agree, records results/peers.csv; with our interpreter
plan.py       the pictures of a comparison, the same files for both
ours.py       one measurement of ours as a JSON line; with our interpreter
theirs.py     one measurement of anomalib's as a JSON line; with the peer's interpreter
declare.py    what the peer's environment needs before torchvision can be imported
measure.py    clocks and counts that both sides use; NumPy and the standard library alone
installed.py  bytes that a package and all it requires take on disk
table.py      results/peers.csv -> the Markdown table
"""
