"""The verifier: hashes what the downloader left in incoming and either promotes it or deletes it.

Rooms, in the order in which a job walks through them: `__main__` (start, signals, stop) ▸ `job` (the one function that
RQ may call) ▸ `verification` (the numbered steps of design §2 "Verify") ▸ `existing` (step 0: what is verified already)
▸ `incoming` (step 1, and the removal bound to what was hashed) ▸ `copies` (a follower's copy or a new one, in which
mode) ▸ `cloned_copy` (steps 2 and 3 where extents can be shared), `private_copy` (where bytes are written, with
`beside`) or `low_space` (the same where there is room for one copy only, as the pure `partial_rules` say) ▸ `verdict`
(pure) ▸ `promote` (step 4) or `rejected` (step 5).

While a download runs, the same copies grow ahead of the job: `following` (threads, woken by journals) ▸ `follower` (one
step) ▸ `announced` (pure: how much may be read) ▸ `copies` and on as above.

Beside them: `housekeeping` (at a start `orphans` of crashes; then a thread: scrub by `quiet_reading`, and `retention`
by its pure `retention_rules`, with `removal`), `progress` and `monitor` (what others are told), `metrics`,
`settings`, `linux` (the system calls that Python lacks), and `run_once` (one verification without Redis, for the
launcher).
"""
