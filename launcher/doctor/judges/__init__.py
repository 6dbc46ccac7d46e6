"""What makes verdicts of facts. Pure."""
