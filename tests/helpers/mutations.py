"""Damaged copies of small films, by seed: mutators that know how containers are built.

Random bytes rarely get past a demuxer's first check. A mutant is therefore made at a place that means something
(a box's size, a table's count, a start code), found by walking the structure of the file itself.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# What a count, a size, a time or a rate can never be, and what lies at its limits.
EXTREMES = (0, 1, 2, 7, 8, 0xFF, 0xFFFF, 0x10000, 1_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
_CONTAINERS = frozenset(
    [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta", b"moof", b"traf", b"mvex"]
)
_TABLES = (b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"co64", b"stss", b"elst", b"trun", b"sdtp")
_HEADERS = (b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"stsd", b"ftyp", b"tfhd", b"tfdt", b"vmhd", b"smhd", b"dref")
_SUFFIXES = (".mp4", ".webm", ".mpg", ".avi", ".ts", ".flv", ".ogg", ".mp3", ".h264", ".txt")
_MAX_DEPTH = 20  # a mutant may be nested by the thousand
# Matroska elements that hold others: segment, info, tracks, entry, video, audio, cluster, group, cues, point, seek.
_MASTERS = frozenset(
    [0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7, 0x114D9B74, 0x4DBB]
)


@dataclass(frozen=True)
class Film:
    """A sound film to be damaged."""

    name: str
    suffix: str
    data: bytes


@dataclass(frozen=True)
class Part:
    """A box, an element or a chunk: where its header begins, where its content does, and where it ends."""

    kind: bytes
    start: int
    content: int
    stop: int
    depth: int


class Damage:
    """A film's bytes on their way to becoming a mutant, and what was done to them so far."""

    def __init__(self, film: Film, others: list[Film], rng: np.random.Generator) -> None:
        self.film, self.others, self.rng = film, others, rng
        self.data = bytearray(film.data)
        self.suffix = film.suffix
        self.done: list[str] = []

    def note(self, text: str) -> None:
        self.done.append(text)

    def offset(self, stop: int | None = None) -> int:
        return int(self.rng.integers(max(1, len(self.data) if stop is None else stop)))

    def length(self, most: int = 4096) -> int:
        """Short lengths more often than long ones."""
        return int(2 ** self.rng.uniform(0, np.log2(max(2, most))))

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def word(self) -> int:
        """A 32-bit word that means trouble."""
        if self.rng.random() < 0.7:
            return self.pick(EXTREMES)
        return int(self.rng.integers(1 << 32))

    def parts(self) -> list[Part]:
        if self.suffix in {".mp4", ".mov"}:
            return list(iter_boxes(bytes(self.data)))
        if self.suffix in {".webm", ".mkv"}:
            return list(iter_elements(bytes(self.data)))
        if self.suffix == ".avi":
            return list(iter_chunks(bytes(self.data)))
        return list(iter_start_codes(bytes(self.data), ts=self.suffix == ".ts"))


def iter_boxes(data: bytes, start: int = 0, stop: int | None = None, depth: int = 0) -> Iterator[Part]:
    """ISO boxes, outer before inner."""
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and start + 16 <= stop:
            size, content = struct.unpack_from(">Q", data, start + 8)[0], start + 16
        end = min(stop, start + size) if size >= 8 else stop
        yield Part(kind, start, content, end, depth)
        if kind in _CONTAINERS and depth < _MAX_DEPTH:
            yield from iter_boxes(data, content, end, depth + 1)
        start = end


def iter_elements(data: bytes, start: int = 0, stop: int | None = None, depth: int = 0) -> Iterator[Part]:
    """EBML elements, outer before inner."""
    stop = len(data) if stop is None else stop
    while start < stop:
        id_length = 9 - data[start].bit_length()
        at = start + id_length
        if data[start] < 0x10 or at >= stop or not data[at]:
            return
        size_length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + size_length], "big") & ((1 << 7 * size_length) - 1)
        content = at + size_length
        unknown = size == (1 << 7 * size_length) - 1
        end = stop if unknown else min(stop, content + size)
        kind = data[start:at]
        yield Part(kind, start, content, end, depth)
        if int.from_bytes(kind, "big") in _MASTERS and depth < _MAX_DEPTH:
            yield from iter_elements(data, content, end, depth + 1)
        start = max(end, start + 1)


def iter_chunks(data: bytes, start: int = 0, stop: int | None = None, depth: int = 0) -> Iterator[Part]:
    """RIFF chunks, outer before inner."""
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        kind, size = struct.unpack_from("<4sI", data, start)
        end = min(stop, start + 8 + size + size % 2)
        yield Part(kind, start, start + 8, end, depth)
        if kind in {b"RIFF", b"LIST"} and depth < _MAX_DEPTH:
            yield from iter_chunks(data, start + 12, end, depth + 1)
        start = end


def iter_start_codes(data: bytes, *, ts: bool = False) -> Iterator[Part]:
    """What lies between MPEG start codes, or transport packets."""
    if ts:
        for start in range(0, len(data), 188):
            yield Part(data[start + 1 : start + 3], start, start + 4, min(start + 188, len(data)), 0)
        return
    start = data.find(b"\0\0\1")
    while start >= 0:
        following = data.find(b"\0\0\1", start + 3)
        yield Part(data[start + 3 : start + 4], start, start + 4, following if following >= 0 else len(data), 0)
        start = following


# --- what can be done to any file ---


def cut_anywhere(damage: Damage) -> None:
    at = damage.offset()
    del damage.data[at:]
    damage.note(f"cut at {at}")


def cut_at_a_part(damage: Damage) -> None:
    part = damage.pick(damage.parts() or [Part(b"", 0, 4, len(damage.data), 0)])
    at = damage.pick([part.start, part.content, part.stop]) + damage.pick([-1, 0, 1, 4])
    del damage.data[max(1, at) :]
    damage.note(f"cut at {at}, around {part.kind!r}")


def flip_bits(damage: Damage) -> None:
    region = damage.pick(["head", "tail", "all", "all"])
    size = len(damage.data)
    low, high = {"head": (0, min(size, 1500)), "tail": (max(0, size - 3000), size), "all": (0, size)}[region]
    density = 10 ** damage.rng.uniform(-4.5, -1.5)
    bits = np.unpackbits(np.frombuffer(bytes(damage.data[low:high]), np.uint8))
    flips = damage.rng.random(len(bits)) < density
    if not flips.any():
        flips[damage.offset(len(bits))] = True
    damage.data[low:high] = np.packbits(bits ^ flips).tobytes()
    damage.note(f"{int(flips.sum())} bits flipped in {region}")


def blank(damage: Damage) -> None:
    at, length = damage.offset(), damage.length()
    fill = damage.pick([b"\0", b"\xff", b"\x01"])
    stop = min(len(damage.data), at + length)
    damage.data[at:stop] = fill * (stop - at)
    damage.note(f"{stop - at} bytes blanked at {at}")


def noise(damage: Damage) -> None:
    at, length = damage.offset(), damage.length()
    inserted = damage.rng.bytes(length)
    damage.data[at : at + length * int(damage.rng.integers(2))] = inserted
    damage.note(f"{length} bytes of noise at {at}")


def drop(damage: Damage) -> None:
    at, length = damage.offset(), damage.length()
    del damage.data[at : at + length]
    damage.note(f"{length} bytes dropped at {at}")


def repeat(damage: Damage) -> None:
    at, length = damage.offset(), damage.length()
    piece = bytes(damage.data[at : at + length])
    damage.data[at:at] = piece * damage.pick([1, 2, 20])
    damage.note(f"{len(piece)} bytes repeated at {at}")


def overwrite_word(damage: Damage) -> None:
    at, word = damage.offset(min(len(damage.data), damage.pick([200, 2000, len(damage.data)]))), damage.word()
    damage.data[at : at + 4] = struct.pack(damage.pick([">I", "<I"]), word)
    damage.note(f"{word:#x} at {at}")


def splice(damage: Damage) -> None:
    other = damage.pick(damage.others)
    at, theirs = damage.offset(), int(damage.rng.integers(len(other.data)))
    damage.data[at:] = other.data[theirs:]
    damage.note(f"from {at} on the bytes of {other.name} from {theirs} on")


def append(damage: Damage) -> None:
    other = damage.pick(damage.others)
    damage.data += other.data
    damage.note(f"{other.name} appended")


def rename(damage: Damage) -> None:
    damage.suffix = damage.pick(_SUFFIXES)
    damage.note(f"named {damage.suffix}")


# --- what can be done to parts ---


def drop_part(damage: Damage) -> None:
    part = damage.pick(damage.parts() or [Part(b"", 0, 1, 1, 0)])
    del damage.data[part.start : part.stop]
    damage.note(f"{part.kind!r} dropped at {part.start}")


def repeat_part(damage: Damage) -> None:
    part = damage.pick(damage.parts() or [Part(b"", 0, 1, 1, 0)])
    piece = bytes(damage.data[part.start : part.stop])
    damage.data[part.stop : part.stop] = piece * (damage.pick([1, 2, 50]) if len(piece) < 5000 else 1)
    damage.note(f"{part.kind!r} repeated at {part.start}")


def swap_parts(damage: Damage) -> None:
    parts = damage.parts() or [Part(b"", 0, 1, 1, 0)]
    first, second = sorted((damage.pick(parts), damage.pick(parts)), key=lambda part: part.start)
    if first.stop <= second.start:
        data = bytes(damage.data)
        middle = data[first.stop : second.start]
        changed = data[second.start : second.stop] + middle + data[first.start : first.stop]
        damage.data[first.start : second.stop] = changed
    damage.note(f"{first.kind!r} and {second.kind!r} swapped")


def rename_part(damage: Damage) -> None:
    parts = damage.parts() or [Part(b"\0", 0, 1, 1, 0)]
    part, other = damage.pick(parts), damage.pick(parts)
    at = bytes(damage.data).find(part.kind, part.start)
    kind = damage.pick([other.kind, b"free", b"\xff\xff\xff\xff"])[: len(part.kind)]
    damage.data[at : at + len(kind)] = kind
    damage.note(f"{part.kind!r} at {part.start} named {kind!r}")


def resize_part(damage: Damage) -> None:
    part = damage.pick(damage.parts() or [Part(b"", 0, 1, 1, 0)])
    size = part.stop - part.start
    word = damage.pick([*EXTREMES, size - 1, size + 1, 2 * size, len(damage.data), damage.offset()]) & 0xFFFFFFFF
    if damage.suffix in {".webm", ".mkv"}:
        width = part.content - part.start - len(part.kind)
        damage.data[part.content - width : part.content] = _ebml_size(word, width)
    elif damage.suffix == ".avi":
        damage.data[part.start + 4 : part.start + 8] = struct.pack("<I", word)
    elif damage.suffix == ".mpg":
        damage.data[part.content : part.content + 2] = struct.pack(">H", word & 0xFFFF)
    else:
        damage.data[part.start : part.start + 4] = struct.pack(">I", word)
    damage.note(f"size of {part.kind!r} at {part.start} set to {word:#x}")


def _ebml_size(value: int, width: int) -> bytes:
    most = (1 << 7 * width) - 1
    return ((1 << 7 * width) | min(value, most)).to_bytes(width, "big")


def change_content(damage: Damage) -> None:
    """A word of a part's content that is no payload: times, rates, sizes, flags."""
    parts = [part for part in damage.parts() if 0 < part.stop - part.content <= 400]
    part = damage.pick(parts or [Part(b"", 0, 0, len(damage.data), 0)])
    at = part.content + int(damage.rng.integers(max(1, part.stop - part.content)))
    length = min(damage.pick([1, 2, 4, 8]), part.stop - at)
    value = damage.pick([damage.word() * damage.pick([1, 1 << 32]), (1 << 64) - 1, damage.word()])
    damage.data[at : at + length] = (value & ((1 << 8 * length) - 1)).to_bytes(length, damage.pick(["big", "little"]))
    damage.note(f"{length} bytes at {at} of {part.kind!r} changed")


def change_table(damage: Damage) -> None:
    """A sample table or a header box of MP4: its count, or some of its entries."""
    boxes = [part for part in damage.parts() if part.kind in _TABLES + _HEADERS and part.stop - part.content >= 8]
    if not boxes:
        change_content(damage)
        return
    box = damage.pick(boxes)
    words = (box.stop - box.content) // 4
    at = 1 if damage.rng.random() < 0.4 else int(damage.rng.integers(words))
    stop = words if damage.rng.random() < 0.15 else at + 1
    word = damage.word()
    for index in range(at, stop):
        damage.data[box.content + 4 * index : box.content + 4 * index + 4] = struct.pack(">I", word)
    damage.note(f"words {at} to {stop - 1} of {box.kind!r} set to {word:#x}")


def nest(damage: Damage) -> None:
    """A box wrapped in thousands of boxes."""
    boxes = [part for part in damage.parts() if part.depth == 0]
    box = damage.pick(boxes or [Part(b"", 0, 0, len(damage.data), 0)])
    depth, kind = damage.pick([3, 30, 3000]), damage.pick([b"moov", b"trak", b"udta", b"meta", b"free"])
    size = box.stop - box.start
    wrapping = b"".join(struct.pack(">I4s", size + 8 * (depth - level), kind) for level in range(depth))
    damage.data[box.start : box.start] = wrapping
    damage.note(f"{box.kind!r} wrapped in {depth} {kind!r}")


def change_stamps(damage: Damage) -> None:
    """The time stamps of MPEG packets (PES headers and pack headers)."""
    data = bytes(damage.data)
    codes = (b"\0\0\1\xe0", b"\0\0\1\xc0", b"\0\0\1\xba")
    places = [at for code in codes for at in _find_all(data, code)]
    if not places:
        change_content(damage)
        return
    for at in damage.rng.choice(places, min(len(places), damage.pick([1, 3, 1000])), replace=False):
        low = int(at) + damage.pick([4, 6, 8, 9, 10, 12])
        damage.data[low : low + 2] = damage.rng.bytes(2)
    damage.note("time stamps changed")


def _find_all(data: bytes, code: bytes) -> list[int]:
    places, at = [], data.find(code)
    while at >= 0:
        places.append(at)
        at = data.find(code, at + 1)
    return places


Mutator = Callable[[Damage], None]
_ANYWHERE: list[Mutator] = [
    cut_anywhere, cut_at_a_part, flip_bits, flip_bits, flip_bits, blank, noise, drop, repeat, overwrite_word,
    overwrite_word, splice, append, rename,
]  # fmt: skip
_PARTS: list[Mutator] = [drop_part, repeat_part, swap_parts, rename_part, resize_part, resize_part]
_BY_SUFFIX: dict[str, list[Mutator]] = {
    ".mp4": [change_table] * 8 + [change_content] * 4 + [nest],
    ".mov": [change_table] * 8 + [change_content] * 4 + [nest],
    ".webm": [change_content] * 8,
    ".mkv": [change_content] * 8,
    ".avi": [change_content] * 6,
    ".mpg": [change_stamps] * 3 + [change_content] * 4,
    ".ts": [change_stamps] * 3 + [change_content] * 4,
}


def mutant(films: list[Film], film: Film, number: int) -> tuple[bytes, str, str]:
    """The mutant of ``film`` with this number: its bytes, its suffix, and what was done in one line."""
    rng = np.random.default_rng([zlib.crc32(film.name.encode()), number])
    damage = Damage(film, [other for other in films if other is not film] or [film], rng)
    mutators = _ANYWHERE + 2 * _PARTS + 2 * _BY_SUFFIX.get(film.suffix, [])
    for _ in range(damage.pick([1, 1, 1, 1, 2, 3])):
        if damage.data:
            damage.pick(mutators)(damage)
    return bytes(damage.data), damage.suffix, "; ".join(damage.done)
