"""The store: two nouns, *incoming* (mutable, untrusted, resumable) and *verified* (immutable, named by its digest).

`layout` names every path, `atomic` holds the operations that survive a crash, `records` the small JSON documents that
lie beside the bytes, `trust` reads what is pinned and `verified` finds what may be loaded. Disk is the truth.
"""
