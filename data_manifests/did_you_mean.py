"""The known name that a misspelt one was likely meant to be."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


def plain(name: str) -> str:
    """Equal for names that differ in upper and lower case or in the Unicode form of their letters."""
    return unicodedata.normalize("NFC", name).casefold()


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about an unknown name: a question with the nearest known one, or `otherwise`."""
    of_plain = {plain(other): other for other in known}
    near = difflib.get_close_matches(plain(name), of_plain, n=1)
    if not near:
        return otherwise
    meant = of_plain[near[0]]
    if meant != name and unicodedata.normalize("NFC", meant) == unicodedata.normalize("NFC", name):
        return f"did you mean {meant}? It looks the same in another Unicode form: {meant!a}, not {name!a}"
    return f"did you mean {meant}?"
