"""The `r3mes` command and what it starts."""
