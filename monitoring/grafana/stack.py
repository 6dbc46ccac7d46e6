"""The dashboard *Stack*."""

from __future__ import annotations

from monitoring.grafana.question import BACKENDS, GOOD_ABOVE_ZERO, Board, Query, Question

STACK = Board(
    "r3mes-stack",
    "R3MES: Stack",
    "Whether everything runs, and what it costs.",
    (
        Question(
            "What is wrong now?",
            (Query('ALERTS{alertstate="firing"}'),),
            kind="table",
            width=16,
            height=5,
            silence="nothing",
            columns=("alertname", "severity", "instance"),
        ),
        Question(
            "Does Redis answer?",
            (Query("min(r3mes_redis_up)"),),
            kind="number",
            width=8,
            height=5,
            steps=GOOD_ABOVE_ZERO,
            words=(("0", "no"), ("1", "yes")),
            alerts=("RedisAway",),
        ),
        Question(
            "Which services give metrics?",
            (Query("sum by (job) (up)", "{{job}}"),),
            alerts=("ServiceDown", "ServiceGone"),
        ),
        Question(
            "Which services were started again?",
            (Query("sum by (job) (changes(process_start_time_seconds[10m])) > 0", "{{job}}"),),
            kind="stack",
            silence="none",
        ),
        Question(
            "What does the gateway answer?",
            (
                Query(
                    "sum by (code)"
                    ' (rate(haproxy_frontend_http_responses_total{proxy="gateway"}[$__rate_interval])) > 0',
                    "{{code}}",
                ),
            ),
            unit="reqps",
            kind="stack",
        ),
        Question(
            "How often did the gateway try again, or refuse?",
            (
                Query(
                    f"sum(increase(haproxy_backend_retry_warnings_total{{{BACKENDS}}}[$__rate_interval]))",
                    "the same miner",
                ),
                Query(
                    f"sum(increase(haproxy_backend_redispatch_warnings_total{{{BACKENDS}}}[$__rate_interval]))",
                    "another miner",
                ),
                Query(
                    f"sum(increase(haproxy_backend_requests_denied_total{{{BACKENDS}}}[$__rate_interval]))",
                    "refused: too many wait",
                ),
            ),
            alerts=("QueueFull",),
        ),
        Question(
            "Which jobs does the verifier have?",
            (Query("sum by (status) (r3mes_verify_queue_jobs)", "{{status}}"),),
        ),
        Question(
            "How long has the oldest job waited?",
            (Query("max by (instance) (r3mes_verify_queue_oldest_seconds)", "{{instance}}"),),
            unit="s",
            steps=((None, "green"), (600.0, "red")),
            alerts=("VerifyQueueOld",),
        ),
        Question(
            "How much memory does each service take?",
            (Query("sum by (job, instance) (process_resident_memory_bytes)", "{{job}} {{instance}}"),),
            unit="bytes",
        ),
        Question(
            "Which version and which genesis does each service work with?",
            (
                Query(
                    "r3mes_build_info * on (job, instance) group_left (sha256)"
                    " max by (job, instance, sha256) (r3mes_genesis_info)"
                ),
            ),
            kind="table",
            columns=("job", "instance", "version", "sha256"),
            alerts=("GenesisChanged", "GenesisDiffers"),
        ),
    ),
)
