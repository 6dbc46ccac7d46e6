"""Where bytes come from: a file that is already there, Hugging Face, IPFS gateways.

`base` holds the limits that no source can forget; `answers` judges HTTP answers and `preflight` what upstream says of
its file (both pure); `connection` connects to checked addresses only, `session` asks one of them, `web` walks redirects
and reads ranges, `ipfs` deals out gateways; `imported` reads a local file; `offers` makes what exists for a pin.
"""
