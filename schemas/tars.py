"""Samples as members of a tar, such that equal samples give equal bytes whoever writes them, and when."""

import io
import tarfile
from collections.abc import Mapping

MEMBER_MODE = 0o644
"""Permissions of every member."""


def add_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Append the members ``KEY.suffix``, sorted by suffix, without owner or time.

    Args:
        tar: open for writing, in the USTAR format.
        key: of the sample.
        members: content by suffix.
    """
    for suffix in sorted(members):
        header = tarfile.TarInfo(f"{key}.{suffix}")  # time and owner are 0 by default, the names empty
        header.mode, header.size = MEMBER_MODE, len(members[suffix])
        tar.addfile(header, io.BytesIO(members[suffix]))
