"""What a station remembers, in one database and one folder.

In reading order: `records` (an inspection, an actor, a filter), `tables` and `migrations` (what the database holds),
`addresses` (of databases), `chain` (rows that are hashed with the one before), `schema` (are the tables ours, and of
today?), `claim` (one station at a time), `database` (one writer, many readers), `disk` (files that cannot be written),
`trail` (who changed what), `history` (every inspection), `kept` (pictures within a budget).
"""
