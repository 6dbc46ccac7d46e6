"""The dashboard *Model supply*."""

from __future__ import annotations

from monitoring.grafana.question import BAD_ABOVE_ZERO, Board, Query, Question, within_a_day

MISMATCHES = 'r3mes_verifications_total{result="mismatch"}'
TAMPERED = 'r3mes_deletions_total{reason="tampered"}'
CHANGED = 'r3mes_scrub_files_total{result="mismatch"}'

SUPPLY = Board(
    "r3mes-supply",
    "R3MES: Model supply",
    "From the pin to a verified file: where each model is, where its bytes come from, and whether they were right.",
    (
        Question(
            "In which state is each model?",
            (Query("max by (model, state) (r3mes_model_state) == 1", "{{model}}"),),
            kind="table",
            height=6,
            columns=("model", "state"),
            alerts=("DownloadFailed", "ChainVeto"),
        ),
        Question(
            "How much of each model is here?",
            (
                Query(
                    "max by (model) (r3mes_download_received_bytes / (r3mes_download_expected_bytes > 0))", "{{model}}"
                ),
            ),
            unit="percentunit",
            kind="bars",
            height=6,
        ),
        Question(
            "Were wrong bytes found within a day?",
            (Query(f"sum({within_a_day(MISMATCHES)})", "wrong"),),
            kind="number",
            width=6,
            height=4,
            steps=BAD_ABOVE_ZERO,
            alerts=("HashMismatch",),
        ),
        Question(
            "Did a verified file change within a day?",
            (
                Query(
                    f"sum({within_a_day(TAMPERED)}) + sum({within_a_day(CHANGED)})",
                    "changed",
                ),
            ),
            kind="number",
            width=6,
            height=4,
            steps=BAD_ABOVE_ZERO,
            alerts=("VerifiedFileTampered",),
        ),
        Question(
            "Did IPFS have to help within a day?",
            (Query(f"sum({within_a_day('r3mes_download_fallbacks_total')})", "times"),),
            kind="number",
            width=6,
            height=4,
            steps=((None, "green"), (1.0, "orange")),
            alerts=("FallbackInUse",),
        ),
        Question(
            "When will the downloads be done?",
            (
                Query(
                    "(sum(r3mes_download_expected_bytes - r3mes_download_received_bytes) > 0)"
                    " / (sum(rate(r3mes_download_bytes_total[5m])) > 0)",
                    "from now",
                ),
            ),
            unit="s",
            kind="number",
            width=6,
            height=4,
            silence="nothing comes",
        ),
        Question(
            "How fast do bytes come, and from where?",
            (Query("sum by (source) (rate(r3mes_download_bytes_total[$__rate_interval]))", "{{source}}"),),
            unit="Bps",
            kind="stack",
            alerts=("DownloadStalled",),
        ),
        Question(
            "How do attempts at a source end?",
            (
                Query(
                    "sum by (source, outcome) (increase(r3mes_download_attempts_total[$__rate_interval]))"
                    " and sum by (source, outcome) (r3mes_download_attempts_total) > 0",
                    "{{source}} {{outcome}}",
                ),
            ),
            kind="stack",
        ),
        Question(
            "Does the disk have room for what is still to come?",
            (
                Query("min by (instance) (r3mes_disk_free_bytes)", "{{instance}}: free"),
                Query(
                    "sum by (instance) (r3mes_download_expected_bytes - r3mes_download_received_bytes)",
                    "{{instance}}: still to come",
                ),
            ),
            unit="bytes",
            alerts=("DiskFullBeforeEnd",),
        ),
        Question(
            "How long did verifications of the last hour take?",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate(r3mes_verification_duration_seconds_bucket[1h])))",
                    "95 % within",
                ),
            ),
            unit="s",
        ),
        Question(
            "How do verifications end?",
            (Query("sum by (result) (increase(r3mes_verifications_total[$__rate_interval]))", "{{result}}"),),
            kind="stack",
        ),
        Question(
            "What was deleted, and why?",
            (Query("sum by (reason) (increase(r3mes_deletions_total[$__rate_interval]))", "{{reason}}"),),
            kind="stack",
        ),
    ),
)
