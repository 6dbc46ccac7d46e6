"""The engine room: one process that owns the model and its cache, and decodes for all requests at once.

Scheduler decides, backend executes, sequence remembers, text stream turns tokens into text that may be shown.
"""
