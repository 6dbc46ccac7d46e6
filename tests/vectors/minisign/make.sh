#!/bin/sh
# Makes these vectors with the real program (Debian's minisign 0.11). The secret keys are not kept.
set -eu
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
printf '{"model_config": {"model_name": "Tiny", "file_name": "tiny.gguf", "download_source": "https://huggingface.co/org/tiny/resolve/main/tiny.gguf", "verification_sha256": "%s", "required_disk_space_gb": 0.1, "ipfs_fallback_hash": ""}}\n' \
  "$(printf 'the model of the tests' | sha256sum | cut -c1-64)" >genesis.json
for who in publisher stranger; do minisign -G -W -p "$who.pub" -s "$keys/$who.key" >/dev/null; done
minisign -S -s "$keys/publisher.key" -m genesis.json -x prehashed.minisig -t 'genesis of the tests, prehashed'
minisign -S -l -s "$keys/publisher.key" -m genesis.json -x legacy.minisig -t 'genesis of the tests, legacy'
minisign -S -s "$keys/publisher.key" -m genesis.json -x other-comment.minisig -t 'genesis of another day'
minisign -S -s "$keys/stranger.key" -m genesis.json -x stranger.minisig -t 'by somebody else'
