"""Mutation testing of the code that decides what is promoted: `make mutation`. See docs/proofs.md."""
