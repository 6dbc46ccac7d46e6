"""The downloader: a controller that brings the pinned files into incoming, and asks the verifier to judge them.

A pin walks through the rooms in this order: `controller` looks at the store (`observe`), `reconcile` decides (pure),
`offers` says which `sources` there are, `transfer` takes bytes from one of them (pure beside it: `ranges`, `space`,
`stop_rules`), `incoming` makes them durable, `courier` asks for the verdict through Redis, `settler` links what was
verified. `board` holds what people see; `api`, `page` and `metrics` show it.
"""
