"""`make bench-miner`: our miner beside llama-server and llama_cpp.server, with llama-batched-bench as the limit."""
