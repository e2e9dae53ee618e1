"""How the tables of the station's database came about, step by step, for alembic.

`env` is what alembic runs, over the connection that `station/schema.py` gives it; the steps are in `versions`.
"""
