"""`r3mes doctor`: what may keep this host from an answer, as checks with a verdict and the next step each.

Invariants: nothing is changed; no check raises or outlasts its bound, whatever it meets; what leaves this host goes by
the downloader's own connection, and not at all with `--offline`; no secret is in a report.
Order: `subject.examine` (settings, store, pins: what checks are about) → `running.run_checks`, all at once → for each
a probe, which gathers facts and judges nothing → a judge, which is pure → `Verdict` → `report`, through `blanking`.
`checks.CHECKS` lists them all, in the order of the report; docs/troubleshooting.md says what each means.
"""
