"""Mutations that keep JSON, text and arrays readable, so that what is behind their parsers is reached."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

NUMBERS = (
    "nan", "inf", "-inf", "1e999", "1e308", "-1e300", "1e-320", "0", "-0.0", "-1", "1", "2", "255", "256", "65536",
    "2147483647", "2147483648", "4294967296", "9223372036854775807", "9" * 400, "9" * 5000, "1e", "0x10", "1_0",
)  # fmt: skip
WORDS = (
    "", ".", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "\ufeff", "\u2028", "\ud800", "é", "x" * 300,
    "x" * 5000, "#", "=", "[", "{", "(", ")" * 50, '"', "'", "%", "@os.system", "None", "\r", "\x1b[31m",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 1.5, float("nan"), float("inf"), -float("inf"), 1e308,
    1e-320, "", "x", "../../x", "a\0", "\ud800", [], {}, [[]], [None], [1], [1, 2, 3], [[1, 0], [0, 1]], {"a": 1},
    "uint8",
)  # fmt: skip


def json_mutation(data: bytes, chance: random.Random) -> bytes | None:
    """One value of the JSON replaced, removed, doubled or moved; None when ``data`` is no JSON."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        content = _changed(content, chance)
    try:
        return json.dumps(content).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _changed(content: Any, chance: random.Random) -> Any:
    """``content`` with a change somewhere in it."""
    here = not isinstance(content, dict | list) or not content or chance.random() < 0.1
    if here:
        return chance.choice(VALUES) if chance.random() < 0.9 else [content, content]
    if isinstance(content, list):
        index, copy = chance.randrange(len(content)), list(content)
        match chance.randrange(6):
            case 0:
                del copy[index]
            case 1:
                copy.insert(index, copy[index])
            case _:
                copy[index] = _changed(copy[index], chance)
        return copy
    key, copy = chance.choice(list(content)), dict(content)
    match chance.randrange(8):
        case 0:
            del copy[key]
        case 1:
            copy[chance.choice(WORDS)] = copy.pop(key)
        case _:
            copy[key] = _changed(copy[key], chance)
    return copy


def text_mutation(data: bytes, chance: random.Random) -> bytes | None:
    """Words and lines replaced, removed, doubled or moved; None when ``data`` is no text."""
    try:
        lines = [line.split(" ") for line in data.decode().split("\n")]
    except UnicodeDecodeError:
        return None
    for _ in range(chance.choice((1, 1, 2, 4))):
        row = chance.randrange(len(lines))
        column = chance.randrange(len(lines[row]))
        match chance.randrange(8):
            case 0:
                del lines[row][column]
                lines[row] = lines[row] or [""]
            case 1:
                lines[row].insert(column, chance.choice(lines[row]))
            case 2:
                lines.insert(row, list(chance.choice(lines)))
            case 3 if len(lines) > 1:
                del lines[row]
            case 4:
                lines[row][column] = chance.choice(WORDS)
            case _:
                lines[row][column] = chance.choice(NUMBERS)
    return "\n".join(" ".join(line) for line in lines).encode("utf-8", "surrogatepass")


def integer_mutation(data: bytes, chance: random.Random) -> bytes | None:
    """Some bytes replaced by a whole number or float that is likely to be a bound."""
    if len(data) < 8:
        return None
    size = chance.choice((1, 2, 4, 8))
    at = chance.randrange(len(data) - size + 1)
    value = chance.choice((0, 1, 2, 2**7, 2**8 - 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1))
    word = (value % 256**size).to_bytes(size, chance.choice(("little", "big")))
    if size >= 4 and chance.random() < 0.3:
        word = chance.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"\1\0\0\0"))
        size = 4
    return data[:at] + word + data[at + size :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes | None], ...] = (json_mutation, text_mutation, integer_mutation)
