"""Step 4: the only door into `verified/`. Whatever comes through has just been hashed to its directory's digest.

The order is what makes it survive a crash at any instant: the bytes are durable before they have a name, the digest's
directory is durable before the name is in it, the name is durable before the receipt speaks of it and before incoming
is touched. A failed fsync is never retried: the kernel may have dropped the pages, so the copy is discarded.
"""

from __future__ import annotations

import os

from services.verifier.linux import rename_noreplace
from services.verifier.private_copy import PrivateCopy
from shared.store.atomic import fsync_dir, open_dir
from shared.store.layout import VERIFIED_FILE_MODE, StoreLayout

_DIGEST_DIR_MODE = 0o755  # and the setgid bit, which it inherits from `verified/`


def promote(copy: PrivateCopy, layout: StoreLayout, digest: str, file_name: str) -> os.stat_result:
    """Give the copy its verified name and return its `fstat` after the last change of metadata.

    Only for a copy that a full pass hashed to `digest`. Raises FileExistsError when the name is taken, OSError when
    something fails; nothing but an empty directory is left then.
    """
    os.fchmod(copy.descriptor, VERIFIED_FILE_MODE)
    os.fsync(copy.descriptor)
    layout.verified_dir(digest).mkdir(_DIGEST_DIR_MODE, exist_ok=True)
    fsync_dir(layout.verified)
    with open_dir(layout.verified_dir(digest)) as directory:  # not through a link in its place
        _name(copy, file_name, directory)
        os.fsync(directory)
    if copy.partial is not None:
        fsync_dir(copy.partial.parent)  # the old name is gone for good
    return os.fstat(copy.descriptor)  # only now: link changes the ctime


def _name(copy: PrivateCopy, file_name: str, directory: int) -> None:
    if copy.partial is None:
        # With a src_dir_fd Python calls linkat with AT_SYMLINK_FOLLOW, which follows the magic link; the path is
        # absolute, so which descriptor it is does not matter. Without, it calls link, which does not: EXDEV.
        os.link(
            f"/proc/self/fd/{copy.descriptor}",
            file_name,
            src_dir_fd=directory,
            dst_dir_fd=directory,
            follow_symlinks=True,
        )
    else:
        with open_dir(copy.partial.parent) as partials:
            rename_noreplace(copy.partial.name, file_name, source_dir_fd=partials, target_dir_fd=directory)
