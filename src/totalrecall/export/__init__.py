"""A fitted model as one graph: a picture's pixels in, score, verdict and map out, without this package.

In reading order: `write` (build, try, and only then write), `build` (the whole graph), `graph` (writing ONNX as
arithmetic), `preparation` (picture to prepared picture), `patches` (patch vectors and distances), `verdict` (score and
map), `metadata` (what a graph says of itself); `runtime` and `parity` (run it, compare it with the model);
`graph_rules` and `exported` (a graph from anywhere, as a detector).
"""
