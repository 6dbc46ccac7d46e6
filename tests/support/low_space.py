"""I2 in low-space mode: every byte is in the partial up to `durable`, or in incoming from there, or verified."""

from shared.store.records import PartialNote
from tests.support.verifier_store import Store, sha256_of

KIB = 1024


def assert_no_byte_is_lost(store: Store, content: bytes, received: int, file_name: str = "tiny.gguf") -> None:
    """Hold the store to it for the first `received` bytes of `content`."""
    layout, digest = store.layout, sha256_of(content)
    if layout.verified_file(digest, file_name).exists():
        assert layout.verified_file(digest, file_name).read_bytes() == content
        return
    note = PartialNote.read(layout.partial_note(digest))
    durable = 0 if note is None else note.durable
    if durable:
        assert layout.partial_file(digest).read_bytes()[:durable] == content[:durable]
    if durable < received:
        kept = [layout.data(digest), *layout.incoming_dir(digest).glob(".claimed-*")]
        (data,) = [path for path in kept if path.exists()]
        assert data.read_bytes()[durable:received] == content[durable:received]
