"""Beyond one machine: shards, manifests, addresses of object stores, and Ray.

No engine is built here. `shards` splits one job among runs that a scheduler starts; `manifest`
records what each run did; `addresses` reads and writes `s3://` and its kin through fsspec;
`planning` makes a batch of addresses; `on_ray` gives the work to Ray Data; `throughput` predicts
how long a job takes and what it costs.

Ray and the clients of the object stores are extras: nothing here imports them before it is used.
"""
