"""Addresses of sources: which are allowed, and what of them may be written down.

An address may carry a password or a signature, and a local path tells about the machine it lies on;
neither may reach a log, a record or a release.
"""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.request import url2pathname

SCHEMES = ("http", "https", "s3", "gs", "file")
_SCHEME_PATTERN = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
# Names of query fields that carry a signature or a credential; such links also expire, so nothing is lost.
_SECRET_FIELD = re.compile(
    r"^x-(amz|goog)-|token|secret|passw|signature|credential|policy|api_?key|^(sig|sign|key|auth|jwt|se|sp|sv|sr|hmac"
    r"|hdnts|hdnea|expires|awsaccesskeyid|googleaccessid|key-pair-id|session(_?id)?|access)$",
    re.IGNORECASE,
)


def uri_scheme(uri: str) -> str:
    """The scheme of ``uri`` in lower case; a plain path has the scheme ``file``."""
    match = _SCHEME_PATTERN.match(uri)
    return match[1].lower() if match else "file"


def check_uri(uri: str) -> str:
    """Accept a URI that a source may have, or a plain file path.

    Raises:
        ValueError: for a forbidden scheme, a web address without host, or an object address without key.
    """
    scheme = uri_scheme(uri)
    if scheme not in SCHEMES:
        raise ValueError(f"scheme '{scheme}:' is not allowed; allowed: {', '.join(SCHEMES)}, or a file path")
    if scheme == "file":
        return uri
    if uri != uri.strip() or re.search(r"[\s\\<>\"]", uri):
        raise ValueError(f"{redact(uri)!r} holds spaces, backslashes, quotes or angle brackets; percent-encode them")
    parts = urlsplit(uri)  # raises ValueError for a malformed IPv6 address
    if scheme in {"http", "https"}:
        if not parts.hostname:
            raise ValueError(f"{redact(uri)!r} names no host")
        _ = parts.port  # raises ValueError when out of range
    elif not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{uri!r} needs a bucket and a key, as in {scheme}://bucket/folder/film.mp4")
    return uri


def redact(uri: str) -> str:
    """Remove user names, passwords, signatures and tokens from ``uri``: what may be logged and published."""
    try:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return uri.split("?", 1)[0].rsplit("@", 1)[-1]
    if not parts.netloc:
        return uri
    kept = [(name, value) for name, value in query if not _SECRET_FIELD.search(name)]
    text = parts.query if len(kept) == len(query) else urlencode(kept)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, text, ""))


def local_path(uri: str) -> Path:
    """The file that a plain path or a ``file:`` URI names.

    Raises:
        ValueError: when the URI names another host.
    """
    if not _SCHEME_PATTERN.match(uri):
        return Path(uri)
    parts = urlsplit(uri)
    if parts.netloc not in {"", "localhost"}:
        raise ValueError(
            f"{uri!r} names the host {parts.netloc!r}; a file URI has three slashes: file:///folder/film.mp4"
        )
    # '?' and '#' are legal in file names, and a query means nothing for a file.
    return Path(url2pathname(uri.split(":", 1)[1].removeprefix("//" + parts.netloc)))
