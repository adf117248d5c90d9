"""Name a file that is a picture, or an animation of pictures, by its first bytes: a list of films often holds some."""

import re
from pathlib import Path

_ANIMATION_BYTES = 1 << 20  # in which a GIF's second frame, or a PNG's word that it has more, is looked for
# By the first bytes; an animation is told apart below.
_SIGNATURES = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"8BPS": "a Photoshop picture",
}
# By the brand of an MPEG-4 file; those of moving pictures ("avis", "hevc") are films.
_BRANDS = {b"avif": "an AVIF picture"} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1"), "a HEIC picture")
# A GIF's picture after what says how long it is shown.
_GIF_FRAME = re.compile(rb"\x21\xf9\x04.{4}\x00[\x2c\x21]", re.DOTALL)


def picture_kind(path: Path) -> str | None:
    """What kind of picture a file is, with its article ("a GIF animation"); None for all else.

    Raises:
        OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(32)
        if head.startswith((b"GIF8", b"\x89PNG")):
            head += file.read(_ANIMATION_BYTES)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "a GIF animation" if len(_GIF_FRAME.findall(head)) > 1 else "a GIF picture"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "a PNG animation" if b"acTL" in head.partition(b"IDAT")[0] else "a PNG picture"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        moves = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
        return "a WebP animation" if moves else "a WebP picture"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP picture"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)


def not_a_film(path: Path) -> str | None:
    """A sentence for a file that is a picture or an animation, and None for all else."""
    kind = picture_kind(path)
    if kind is None:
        return None
    if kind.endswith("animation"):
        return f"{path.name} is {kind}, no film: convert it to mp4 ('ffmpeg -i FILE -pix_fmt yuv420p NEW.mp4')"
    return f"{path.name} is {kind}, no film: name a film"
