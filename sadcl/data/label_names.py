"""Labels that a table probably means otherwise than it says: one written twice, several in one, or
a text that was read in another encoding.

Nothing here looks at images, so that it takes no time. A remark is a question: some data sets do
have such labels.
"""

from __future__ import annotations

import html
import re
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

PUBLISHED = {"voc2007", "voc2012", "nuswide", "vg500", "scenes"}
"""Data sets whose readers take the publisher's labels alone, which are as they are."""
QUOTES = "\"'`´‘’‚‛“”„‟«»‹›＂＇"
_MARKS = f"{QUOTES}_"
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks that are drawn as nothing."""
_DASH = re.compile(
    "(?<=[^\\W\\d_])[-\u2010-\u2015\u2212](?=\\w)|(?<=\\d)[-\u2010-\u2015\u2212](?=[^\\W\\d_])"
)
"""A dash between letters, or letters and digits, where others write a blank or nothing."""
_STOPS = ".,:;!?"
"""What ends a sentence, and not a name."""
_NUMBER = re.compile(r"0*(\d+)(?:\.0+)?")
"""A whole number as spreadsheets and pandas write it: ``7``, ``007`` or ``7.0``."""
_LOOKALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501"
    "\u03bf\u03c1\u03bd\u0131\u0251",
    "aeopcyxijshdopvia",
)
"""Small Cyrillic, Greek and other letters that are drawn as Latin ones."""
_CAPITALS = (
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0406"
    "\u0408\u0405\u0391\u0392\u0395\u0396\u0397\u0399"
    "\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
"""Capitals that are drawn as Latin ones, while their small letters may not be."""
_NO_VALUE = {
    *("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "nil", "undefined", "(null)", "?"),
}
"""How programs write that there is no value, in small letters."""
_UNSEEN_ASCII = {code: None for code in range(128) if not chr(code).isprintable()} | {
    ord(character): None for character in f" _{QUOTES}"
}
_LIST_MARKS = "|,;\t\u3001\u060c\u061b\u00a6\u2016\u2022"
_LISTS = re.compile(rf"\s*[{_LIST_MARKS}]\s*")
"""What joins names in no language, so that one is enough for a remark."""
_JOINERS = {"/": r"\s*/\s*", "+": r"\s*\+\s*", "&": r"\s*&\s*"}
"""What joins names in tables, but also stands in names, so that one part must be a name too."""
_WEAK_JOINERS = {
    **{sign: rf"\s*{re.escape(sign)}\s*" for sign in ":\\>~#*^=.\u00b7\u30fb"},
    "-": r"\s*[-\u2010-\u2015]\s*",
    "_": r"[\s_]*_[\s_]*",
    "and": r"\s+(?:and|und|et|y|e|och|en|or)\s+",
    " ": r"\s+",
}
"""What mostly stands in names, so that all parts must be names too."""
_ENTITY = re.compile(r"&#?\w+;")


class Remark(NamedTuple):
    """A label that may be wrong."""

    kind: str
    """``alike`` (the same as another but for its writing), ``joined`` (several in one), ``garbled``
    (read in another encoding) or ``empty`` (no label, but how programs write that)."""
    label: str
    reason: str


def remarks_on(labels: Sequence[str]) -> list[Remark]:
    """Return what is odd about labels, at most one remark a label."""
    first: dict[str, Remark] = {}
    for remark in (*_garbled(labels), *_alike(labels), *_joined(labels)):
        first.setdefault(remark.label, remark)
    return list(first.values())


def warning_of(labels: Sequence[str], examples: int = 3) -> str:
    """Return one paragraph about the remarks on these labels; empty if there are none."""
    remarks = remarks_on(labels)
    if not remarks:
        return ""
    first = "; ".join(f"{one.label!r} {one.reason}" for one in remarks[:examples])
    more = f"; and {len(remarks) - examples:,} more" if len(remarks) > examples else ""
    return (
        f"{len(remarks):,} of {len(labels):,} labels look wrong: {first}{more}. If they are, "
        "correct the annotations: ';' goes between the names of a table."
    )


def plain(label: str) -> str:
    """Return a label without what a reader of it does not see or hear.

    That is letter case, blanks, underscores, dashes between letters, a stop at the end, invisible
    characters, quotes, letters of other scripts that are drawn as Latin ones, and the Unicode form
    (NFKC, so that full-width and joined letters count as the usual ones). Whole numbers have no
    zeros before them or behind a point.
    """
    if label.isascii():  # the same, faster
        text = label.lower() if "-" not in label else _DASH.sub("", label.lower())
        text = text.translate(_UNSEEN_ASCII)
    else:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
        text = "".join(
            c for c in _DASH.sub("", text) if not (c.isspace() or c in _MARKS or _invisible(c))
        )
        text = text.translate(_LOOKALIKE)
    text = text.rstrip(_STOPS) or text
    number = _NUMBER.fullmatch(text) if text[:1].isdigit() else None
    return number[1] if number else text


def _invisible(character: str) -> bool:
    if character.isascii():
        return not character.isprintable()
    is_selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return is_selector or character in _FILLERS or unicodedata.category(character) in ("Cf", "Cc")


def _alike(labels: Sequence[str]) -> Iterator[Remark]:
    """Yield labels that are the same as an earlier one when written plainly."""
    first: dict[str, str] = {}
    for label in labels:
        bare = plain(label)
        other = first.setdefault(bare, label) if bare else label
        if other != label:
            yield Remark(
                "alike",
                label,
                f"({label!a}) is {other!r} ({other!a}) but for case, blanks, dashes, quotes or "
                "characters that are not seen, or look the same",
            )
        elif not bare and not label.isascii():
            yield Remark("alike", label, f"({label!a}) has no character that is seen")
        elif not label.isascii() and (word := _mixed_word(label)):
            what = f"has {word!r} ({word!a}), whose letters look Latin, and are of another script"
            yield Remark("alike", label, what)


def _mixed_word(label: str) -> str:
    """Return the first word that has Latin letters, and others which are drawn like such."""
    for word in re.findall(r"\w+", label):
        lookalike = any(
            c in _CAPITALS or ord(c) in _LOOKALIKE for c in word if c not in "\u0131\u0251"
        )
        if lookalike and any("LATIN" in unicodedata.name(c, "") for c in word):
            return word
    return ""


def _garbled(labels: Sequence[str]) -> Iterator[Remark]:
    """Yield labels that were read in another encoding, are escaped, or say that there is none."""
    for label in labels:
        if label.strip().lower() in _NO_VALUE:
            yield Remark("empty", label, "is how programs write that there is no value")
        elif "\ufffd" in label:
            yield Remark("garbled", label, "has the sign for a character that could not be read")
        elif (text := _unescaped(label)) != label:
            yield Remark("garbled", label, f"is {text!r} in another writing, or another encoding")


def _unescaped(label: str) -> str:
    """Return what a label is without escapes of HTML and addresses, and in its own encoding."""
    if label.isascii():
        text = html.unescape(label) if _ENTITY.search(label) else label
        try:
            return urllib.parse.unquote(text, errors="strict") if "%" in text else text
        except UnicodeDecodeError:
            return text
    for encoding in ("cp1252", "latin-1", "mac-roman"):
        try:
            return label.encode(encoding).decode("utf-8")
        except UnicodeError:
            pass
    return label


def _joined(labels: Sequence[str]) -> Iterator[Remark]:
    """Yield labels that look like several."""
    names = {plain(label) for label in labels}
    parts_of = {
        joiner: {
            label: parts
            for label in labels
            if _may_have(joiner, label) and len(parts := _parts(label, pattern)) > 1
        }
        for joiner, pattern in (_JOINERS | _WEAK_JOINERS).items()
    }
    recurring = {joiner: _recurring(split.values(), joiner) for joiner, split in parts_of.items()}
    for label in labels:
        usual = _usual(label)
        if label.startswith(("[", "(", "{")) and label.endswith(("]", ")", "}")):
            yield Remark("joined", label, "is in brackets, as a list is written")
        elif len([part for part in _LISTS.split(usual) if part]) > 1:
            mark = next(mark for mark in _LIST_MARKS if mark in usual)
            yield Remark("joined", label, f"has {mark!r}, which stands between names")
        elif label.startswith(("[", "{")) or label.endswith(("]", "}")):
            yield Remark("joined", label, "has one bracket of two, as a part of a list does")
        elif len(label) > 2 and label[0] in QUOTES and label[-1] in QUOTES:
            yield Remark("joined", label, "is in quotes, as in a list that was not read as one")
        else:
            for joiner, split in parts_of.items():
                if label in split and (
                    known := _known(split[label], joiner, names, recurring[joiner])
                ):
                    what = "labels too" if set(known) <= names else "parts of other labels"
                    shown = " and ".join(map(repr, known))
                    yield Remark("joined", label, f"has {joiner!r} between {shown}, {what}")
                    break


def _may_have(joiner: str, label: str) -> bool:
    """Return False, fast, for most labels without this joiner."""
    if not label.isascii():
        return True
    if joiner in ("-", "and"):
        return ("-" if joiner == "-" else " ") in label
    return joiner in label


def _usual(label: str) -> str:
    """Return a label whose separators are not full-width."""
    return label if label.isascii() else unicodedata.normalize("NFKC", label)


def _parts(label: str, pattern: str) -> list[str]:
    return [bare for part in re.split(pattern, _usual(label)) if (bare := plain(part))]


def _known(
    parts: Sequence[str], joiner: str, names: set[str], recurring: set[str]
) -> Sequence[str]:
    """Return the parts if they are likely to be labels, else nothing.

    A blank or a dash stands in many names, so that all parts must be labels, or all must stand in
    other labels, some of them at other places, which the words of a name rarely do.
    """
    if joiner in _WEAK_JOINERS:
        return parts if names.issuperset(parts) or recurring.issuperset(parts) else ()
    if names.issuperset(parts) or recurring.issuperset(parts):
        return parts
    return [part for part in parts if part in names]


def _recurring(splits: Collection[Sequence[str]], joiner: str) -> set[str]:
    """Return parts that stand in several labels, if any stands now first and now not.

    Between words there are blanks in most names, so that each part has to stand at both places.
    """
    count = Counter(part for parts in splits for part in set(parts))
    first = {parts[0] for parts in splits}
    later = {part for parts in splits for part in parts[1:]}
    both = first & later
    several = {part for part, number in count.items() if number > 1}
    return several & both if joiner == " " else several if both else set()
