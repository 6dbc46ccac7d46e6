"""What the miners of this node say of themselves, for people to see; nothing here decides anything.

`places` reads R3MES_MINER_URL and resolves it, `asking` asks one address within bounds, `answers` makes sense of what
came (pure), `poll` puts all miners' answers together.
"""
