"""Damage to bytes and to trees of plain values: what a disk, an editor or a stranger makes of them.

Every function takes a ``random.Random``, so that a case can be had again by its number.
"""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

_INTERESTING = (
    0,
    1,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_LONG = 4096
_DEEPEST_PLACE = 10
_FOREIGN = (
    b"",
    b"\0" * 512,
    b"<!DOCTYPE html><html><title>404</title></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    b"PK\x03\x04",
    b"PK\x05\x06" + b"\0" * 18,
    b"\x80\x02}q\x00.",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    "\ufeffnaïve = 'ß'\n".encode("utf-16"),
)


def damage_bytes(content: bytes, choice: random.Random) -> bytes:
    """Do one to four of the things that happen to files."""
    if choice.random() < 0.02:
        return choice.choice(_FOREIGN)
    for _ in range(choice.choice((1, 1, 1, 2, 4))):
        content = choice.choice(_WAYS)(content, choice)
    return content


def _flip_bit(content: bytes, choice: random.Random) -> bytes:
    if not content:
        return b"\x01"
    place = choice.randrange(len(content))
    flipped = content[place] ^ 1 << choice.randrange(8)
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def _cut_short(content: bytes, choice: random.Random) -> bytes:
    return content[: choice.randrange(len(content) + 1)]


def _cut_out(content: bytes, choice: random.Random) -> bytes:
    start, stop = _stretch(content, choice)
    return content[:start] + content[stop:]


def _say_twice(content: bytes, choice: random.Random) -> bytes:
    start, stop = _stretch(content, choice)
    return content[:stop] + content[start:stop] + content[stop:]


def _swap_in(content: bytes, choice: random.Random) -> bytes:
    """Put a stretch of the same file over another."""
    start, stop = _stretch(content, choice)
    target = choice.randrange(len(content) + 1)
    return content[:target] + content[start:stop] + content[target + stop - start :]


def _blank(content: bytes, choice: random.Random) -> bytes:
    start, stop = _stretch(content, choice)
    return content[:start] + bytes([choice.choice((0, 0, 255))]) * (stop - start) + content[stop:]


def _put_number(content: bytes, choice: random.Random) -> bytes:
    """Put a number of a kind that lengths and offsets break at over some bytes."""
    size, order = choice.choice((1, 2, 4, 8)), choice.choice(("little", "big"))
    number = choice.choice(_INTERESTING) % 256**size
    place = choice.randrange(len(content) + 1)
    return content[:place] + number.to_bytes(size, order) + content[place + size :]


def _put_digits(content: bytes, choice: random.Random) -> bytes:
    """Replace the digits at some place of a text by others."""
    digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not digits:
        return content
    place = choice.choice(digits)
    number = choice.choice((b"-1", b"0", b"9" * 30, b"1e999", b"9" * 5000, b"0.5", b"NaN"))
    return content[:place] + number + content[place + 1 :]


def _add(content: bytes, choice: random.Random) -> bytes:
    place = choice.randrange(len(content) + 1)
    return content[:place] + choice.randbytes(choice.randrange(1, 64)) + content[place:]


def _stretch(content: bytes, choice: random.Random) -> tuple[int, int]:
    start = choice.randrange(len(content) + 1)
    return start, min(len(content), start + choice.choice((1, 2, 4, 16, 64, 512, _LONG)))


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip_bit, _flip_bit, _flip_bit, _cut_short, _cut_out, _say_twice),
    *(_swap_in, _blank, _put_number, _put_number, _put_digits, _add),
)


def damage_tree(tree: Any, choice: random.Random, leaves: Callable[[random.Random], Any]) -> Any:
    """Return a copy of nested dicts and lists with one to three places changed.

    Args:
        tree: What to begin with.
        choice: What happens.
        leaves: Gives a value to put somewhere.
    """
    whole, tree = list(_places(tree)), copy.deepcopy(tree)
    for _ in range(choice.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return leaves(choice)
        holder, key = choice.choice(places)
        way = choice.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[strange_text(choice)] = holder.pop(key)
        elif way == 2 and isinstance(holder, dict):
            holder[_near(str(key), choice)] = holder[key]
        elif way == 3:  # what belongs elsewhere
            other, other_key = choice.choice(whole)
            holder[key] = copy.deepcopy(other[other_key])
        else:
            holder[key] = leaves(choice)
    return tree


def _places(tree: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list) and depth < _DEEPEST_PLACE:
        for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            yield tree, key
            yield from _places(value, depth + 1)


def _near(text: str, choice: random.Random) -> str:
    """Misspell a text."""
    place = choice.randrange(len(text) + 1)
    return (
        text[:place]
        + choice.choice(("", "x", "_", text[place : place + 1] * 2))
        + text[place + 1 :]
    )


def strange_text(choice: random.Random) -> str:
    """Return a text that a name may not be, or only nearly may."""
    if choice.random() < 0.3:
        return "".join(choice.choices(_STRANGE_LETTERS, k=choice.randrange(12)))
    return choice.choice(_STRANGE_TEXTS)


_STRANGE_LETTERS = "abz09_-./\\:\0\n\u00e9\u0301\u202e\U0001f600 ~*?\"'"
_STRANGE_TEXTS = (
    *("", ".", "..", "../x", "../../../../etc/passwd", "/etc/passwd", "C:\\x", "a/b", "a\\b"),
    *("-x", "x\0y", "nul", "CON.txt", "x.", " x", "x ", "x" * 300, "~", "~root", "$HOME", "%2e%2e"),
    *("best", "epoch_0", "epoch_-1", "epoch_99999999999999999999", "epoch_x", "frzn", ".store"),
    *("Net", "NET", "net.pt", "n\u00e9t", "ne\u0301t", "\ud800", "class", "train", "__class__"),
)


def strange_value(choice: random.Random) -> Any:
    """Return a value of JSON that is seldom right."""
    return choice.choice(_MAKERS)(choice)


_MAKERS: tuple[Callable[[random.Random], Any], ...] = (
    strange_text,
    strange_text,
    lambda choice: choice.choice((-1, 0, 1, 2, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400)),
    lambda choice: choice.choice((0.5, -0.0, 1e308, float("inf"), float("-inf"), float("nan"))),
    lambda choice: choice.choice((True, False, None)),
    lambda choice: [strange_value(choice) for _ in range(choice.randrange(3))],
    lambda choice: {
        strange_text(choice): strange_value(choice) for _ in range(choice.randrange(3))
    },
    lambda choice: nested(choice.choice((50, 250))),
)


def nested(depth: int) -> Any:
    """Return a list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value
