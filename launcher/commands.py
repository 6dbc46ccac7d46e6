"""The table of commands: what the list of them shows. Everything else is said by a command's module.

In the order of the help; the last column is the first paragraph of the command's own help, which a test compares.
"""

from __future__ import annotations

from launcher.deferred import Row

RUNNING, MODELS, GENESIS, HOSTS = "Running", "Models", "Genesis", "This host and others"
COMMANDS = (
    Row(
        "demo",
        "demo_command",
        RUNNING,
        "Show the whole chain on this machine: download, verify, load, answer; then serve until Ctrl-C.",
    ),
    Row(
        "status",
        "status_command",
        RUNNING,
        "Show models, miners, queue and disk of the running stack; without one, what the store holds.",
    ),
    Row(
        "ask",
        "ask_command",
        RUNNING,
        "Ask the running stack, or any OpenAI endpoint, one question.",
    ),
    Row(
        "chat",
        "chat_command",
        RUNNING,
        "Talk with the running stack, or with any OpenAI endpoint: each question carries what was said before.",
    ),
    Row(
        "pull",
        "pull_command",
        MODELS,
        "Fetch and verify models: a running stack (R3MES_URL) is asked and watched; without one this process does it.",
    ),
    Row(
        "pause",
        "word_commands",
        MODELS,
        "Stop downloads within a second, and keep what came until `r3mes resume`.",
    ),
    Row(
        "resume",
        "word_commands",
        MODELS,
        "Let paused downloads go on from where they were.",
    ),
    Row(
        "cancel",
        "word_commands",
        MODELS,
        "Give downloads up; what came is kept until `r3mes retry` or `r3mes pull`.",
    ),
    Row(
        "retry",
        "word_commands",
        MODELS,
        "Forget failures and wrong bytes of the past, and try again now.",
    ),
    Row(
        "import",
        "import_command",
        MODELS,
        "Take model files that you already have, under any name: nothing is downloaded, and the bytes are verified.",
    ),
    Row(
        "verify",
        "verify_command",
        MODELS,
        "Hash model files and say whether the genesis pins them: exit code 0 if all are pinned, 3 if one is not.",
    ),
    Row(
        "gc",
        "gc_command",
        MODELS,
        "Remove verified models that neither the accepted nor the staged genesis pins, and what is left "
        "of such downloads.",
    ),
    Row(
        "init",
        "init_command",
        GENESIS,
        "Check the settings and the genesis, then prepare the store; `check` stops after the checks.",
    ),
    Row(
        "genesis",
        "genesis_commands",
        GENESIS,
        "The genesis: which models are pinned, and which genesis this host has accepted.",
    ),
    Row(
        "doctor",
        "doctor_command",
        HOSTS,
        "Look for what keeps this host from an answer: settings, network, sources, store, services, GPU, containers.",
    ),
    Row(
        "bench",
        "bench_command",
        HOSTS,
        "Measure this host: link, disk, hash, and a model's prefill and decode, in about a minute.",
    ),
    Row(
        "fleet",
        "fleet_command",
        HOSTS,
        "Write down several models, a miner for each GPU, more hosts: for Compose, the gateway and Prometheus.",
    ),
    Row(
        "completion",
        "completion_command",
        HOSTS,
        "Print the script that completes `r3mes` in a shell.",
    ),
)
