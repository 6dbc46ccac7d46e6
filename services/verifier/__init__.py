"""The verifier: hashes what the downloader left in incoming and either promotes it or deletes it.

Rooms, in the order in which a job walks through them: `__main__` (start, signals, stop) ▸ `job` (the one function that
RQ may call) ▸ `verification` (the numbered steps of design §2 "Verify") ▸ `existing` (step 0: what is verified already)
▸ `incoming` (step 1, and the removal bound to what was hashed) ▸ `private_copy` (steps 2 and 3) ▸ `verdict` (pure) ▸
`promote` (step 4) or `rejected` (step 5). Beside them: `housekeeping` (orphans of crashes), `progress` and `monitor`
(what others are told), `metrics`, `settings`, `linux` (the system calls that Python lacks), and `run_once` (one
verification without Redis, for the launcher).
"""
