"""The same commands, spread over the machines of a Ray cluster; imported only where `--ray` is given.

In reading order: `connection` (joins a cluster, or starts one on this machine), `share` (what each worker gets of it),
`models` (a model in the workers).

Of a fit: `survey` (what is asked of pictures in a store before they are read), `fitting` (pictures to bank, as one
process does it, to the bit), `crew` (the workers), `worker` (what each does), `shards` (pictures that one reads
together), `rows` (numbers in memory that processes share), `coreset` (algorithm 1 among these), `kept` (what a killed
fit goes on with; `packing` makes files of it).

Of both: `errands` (who gets which work, and what becomes of work over which workers die), `isolating` (the pictures
that end a worker), `run_folder` (of a long run).

Of predict: `listing` (pictures by name, here or in a store such as S3), `parts` (what a long run has done so far),
`predicting` (workers that judge).

Of benchmark: `cells` (each a task).

Of serve: `serving` (replicas that judge for a station).

How long it will take: `cost` (what a picture, a patch, a choice cost), `outlook` (what that foresees of large jobs).
"""
