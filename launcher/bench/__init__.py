"""`r3mes bench`: a short, honest look at how fast this host is, from the link to the last token.

Invariants: nothing is left behind, however it ends; a read that may come out of memory is never called a disk's; each
figure has its unit, its rounds, its spread and what was done before it; whatever cannot be measured says why.
Order: `link`, `disk`, `hashing`, `inference` (with a miner that runs, else one of its own: `miner`), each a list of
`Figure` and `Missing`; then `report`.
"""
