"""What two services need, and nothing else.

Rooms, in the order in which a start walks through them: `settings` and `log`, `errors`, `genesis` and `acceptance`
(which digests are wanted), `store` (where bytes live and how they change), `states` and `hints` (what Redis is told),
`queue` (the only door to RQ), `process_server` and `metrics`. Nothing here imports a service.
"""
