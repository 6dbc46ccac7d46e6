"""The downloader: a controller that brings the pinned files into incoming, and asks the verifier to judge them.

A pin walks through the rooms in this order: `controller` looks at the store (`observe`), `reconcile` decides (pure),
`transfers` starts one turn of one of the `sources` in the `runner`'s thread, `transfer` takes the bytes and makes them
durable, `courier` asks for the verdict through Redis, `settler` links what was verified. `chain_watch` holds the
chain's veto, `board` what people see, `miners` asks the miners how they are; `api`, `page` and `metrics` show it.
"""
