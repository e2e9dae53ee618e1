"""Exact nearest neighbours.

In reading order: `exact` (the search), `bounds` (the graph that prunes it), `levels` (in how many dimensions).
"""
