"""What disks and people do to a file: a byte flipped, an end cut off, a stretch of zeros, another file in its place."""

import random
from pathlib import Path

KINDS = ("bit", "byte", "digit", "cut", "zeros", "empty", "garbage", "line", "swap")

#: The files that `line` and `digit` make sense for.
TEXTS = (".json", ".csv", ".yaml", ".key")


def damage(drawn: random.Random, file: Path, other: Path | None = None) -> str:
    """Damage the file in a way that is drawn, `swap` with `other` where there is one; says how."""
    kinds = [kind for kind in KINDS if kind != "swap" or other is not None]
    kinds = [kind for kind in kinds if kind not in ("digit", "line") or file.suffix in TEXTS]
    kind = drawn.choice(kinds)
    before = file.read_bytes()
    after = before
    while after == before:
        after, how = _damaged(kind, drawn, before, other)
        kind = drawn.choice(kinds)  # where it changed nothing: a file of no digits, a copy of the other
    file.write_bytes(after)
    return f"{how} of {file.name}"


def _damaged(kind: str, drawn: random.Random, content: bytes, other: Path | None) -> tuple[bytes, str]:
    place = drawn.randrange(max(len(content), 1))
    if kind in ("bit", "byte") and content:
        mask = 1 << drawn.randrange(8) if kind == "bit" else drawn.randrange(1, 256)
        return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :], f"{kind} {place}"
    if kind == "digit":
        digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
        if digits:
            place = drawn.choice(digits)
            return content[:place] + drawn.choice("0123456789").encode() + content[place + 1 :], f"digit {place}"
    if kind == "zeros" and content:
        end = min(place + drawn.choice([1, 16, 512, 4096]), len(content))
        return content[:place] + bytes(end - place) + content[end:], f"zeros {place} to {end}"
    if kind == "line":
        lines = content.splitlines(keepends=True)
        if lines:
            gone = drawn.randrange(len(lines))
            return b"".join([*lines[:gone], *lines[gone + 1 :]]), f"line {gone} gone"
    if kind == "garbage":
        return content[:place] + drawn.randbytes(drawn.choice([1, 8, 300])) + content[place:], f"garbage at {place}"
    if kind == "swap" and other is not None:
        return other.read_bytes(), f"{other.parent.name}/{other.name} in place"
    return content[:place], f"cut at {place}"
