"""`r3mes demo`: the whole chain on one machine, from a pinned hash to an answer, in front of one's eyes.

Nothing here is a stand-in but the origin, which behaves like Hugging Face and serves the real file: the services are
the ones that every deployment runs, as processes, with a real Redis.

Order of calls: `run.run_demo` reads what is needed (*places*, *model_file*), takes the lock, starts Redis, origin and
services (*environment*, *supervisor*, *restarts*), and keeps them running in its main thread; a second thread tells
what happens (*story*: *follow* the download and the verification, ask, print the table) through a *display*.
However it ends, no process stays.
"""
