"""The miner: from a verified file to answers over HTTP."""
