"""The OpenAI-shaped HTTP API: parse, template, tokenise, limits, server-sent events. It never decodes."""
