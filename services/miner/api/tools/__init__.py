"""Function calling: what a request declares, and what of an answer is a call."""
