"""Where bytes come from: a file that is already there, Hugging Face, IPFS gateways.

`base` holds the limits that no source can forget; `answers` judges HTTP answers (pure); `connection` connects to
checked addresses only; `web` walks redirects and reads ranges; `imported` reads a local file.
"""
