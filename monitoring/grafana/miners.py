"""The dashboard *Miners*."""

from __future__ import annotations

from monitoring.grafana.question import BACKENDS, CHOSEN, GOOD_ABOVE_ZERO, Board, Query, Question, quantiles

MINERS = Board(
    "r3mes-miners",
    "R3MES: Miners",
    "What users of the API feel, and why; for all miners or the ones chosen above.",
    (
        Question(
            "How many miners can serve?",
            (Query(f"max by (proxy) (haproxy_backend_active_servers{{{BACKENDS}}})", "{{proxy}}"),),
            kind="number",
            width=6,
            height=5,
            steps=GOOD_ABOVE_ZERO,
            alerts=("NoReadyMiner",),
        ),
        Question(
            "What does each miner serve, and by which engine?",
            (Query(f"r3mes_miner_model_info{CHOSEN}"),),
            kind="table",
            width=18,
            height=5,
            columns=("instance", "model", "engine", "quantization"),
        ),
        Question(
            "How long is it until the first token?",
            quantiles("r3mes_miner_time_to_first_token_seconds", 0.5, 0.95, 0.99),
            unit="s",
            steps=((None, "green"), (5.0, "red")),
            alerts=("SlowFirstToken",),
        ),
        Question(
            "How long is it from token to token?",
            quantiles("r3mes_miner_inter_token_latency_seconds", 0.5, 0.95, 0.99),
            unit="s",
        ),
        Question(
            "How many requests run, and how many wait?",
            (
                Query(f"sum(r3mes_miner_requests_running{CHOSEN})", "run"),
                Query(f"sum(r3mes_miner_requests_waiting{CHOSEN})", "wait in a miner"),
                Query(f"sum(haproxy_backend_current_queue{{{BACKENDS}}})", "wait in the gateway"),
            ),
            alerts=("QueueFull",),
        ),
        Question(
            "How many tokens a second?",
            (
                Query(f"sum(rate(r3mes_miner_generation_tokens_total{CHOSEN}[$__rate_interval]))", "generated"),
                Query(f"sum(rate(r3mes_miner_prompt_tokens_total{CHOSEN}[$__rate_interval]))", "of prompts"),
            ),
        ),
        Question(
            "Does every miner do its share?",
            (
                Query(
                    f"sum by (instance) (rate(r3mes_miner_generation_tokens_total{CHOSEN}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            kind="stack",
        ),
        Question(
            "How do requests end?",
            (
                Query(
                    f"sum by (outcome) (rate(r3mes_miner_requests_total{CHOSEN}[$__rate_interval])) > 0", "{{outcome}}"
                ),
            ),
            unit="reqps",
            kind="stack",
        ),
        Question(
            "How full are the caches?",
            (Query(f"r3mes_miner_kv_cache_usage_ratio{CHOSEN}", "{{instance}}"),),
            unit="percentunit",
        ),
        Question(
            "How much of the prompts was in the cache already?",
            (
                Query(
                    f"sum(rate(r3mes_miner_prefix_cache_hit_tokens_total{CHOSEN}[$__rate_interval]))"
                    f" / (sum(rate(r3mes_miner_prompt_tokens_total{CHOSEN}[$__rate_interval])) > 0)",
                    "share",
                ),
            ),
            unit="percentunit",
        ),
        Question(
            "Do engines die, are answers put back for want of room?",
            (
                Query(
                    f"sum by (instance) (increase(r3mes_miner_engine_restarts_total{CHOSEN}[$__rate_interval]))",
                    "{{instance}}: engine started again",
                ),
                Query(
                    f"sum by (instance) (increase(r3mes_miner_preemptions_total{CHOSEN}[$__rate_interval]))",
                    "{{instance}}: put back",
                ),
            ),
            alerts=("EngineCrashes",),
        ),
        Question(
            "How long does a request take, and how long of it does it wait?",
            (
                *quantiles("r3mes_miner_request_latency_seconds", 0.95),
                Query(
                    "histogram_quantile(0.95, sum by (le)"
                    f" (rate(r3mes_miner_queue_seconds_bucket{CHOSEN}[$__rate_interval])))",
                    "95 % wait less than",
                ),
            ),
            unit="s",
        ),
        Question(
            "How busy are the GPUs?",
            (Query(f"r3mes_miner_gpu_utilization_ratio{CHOSEN}", "{{instance}} GPU {{gpu}}"),),
            unit="percentunit",
            alerts=("SilentProcessor",),
            gpu=True,
            silence="no miner sees an NVIDIA GPU",
        ),
        Question(
            "How much GPU memory is in use?",
            (Query(f"r3mes_miner_gpu_memory_used_bytes{CHOSEN}", "{{instance}} GPU {{gpu}}"),),
            unit="bytes",
            gpu=True,
            silence="no miner sees an NVIDIA GPU",
        ),
    ),
    chooses_miners=True,
)
