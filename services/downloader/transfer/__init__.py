"""One source's turn at one model: what is decided (pure: ranges, space, stop_rules, outcomes) and what moves bytes."""
