"""Labels that a table probably means otherwise than it says: one written twice, or several in one.

Nothing here looks at images, so that it takes no time. A remark is a question: some data sets do
have such labels.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

PUBLISHED = {"voc2007", "voc2012", "nuswide", "vg500", "scenes"}
"""Data sets whose readers take the publisher's labels alone, which are as they are."""
QUOTES = "\"'`´‘’‚‛“”„‟«»‹›＂＇"
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks that are drawn as nothing."""
_UNSEEN_ASCII = {code: None for code in range(128) if not chr(code).isprintable()} | {
    ord(character): None for character in f" _{QUOTES}"
}
_LISTS = re.compile(r"\s*[|,;\t]\s*")
"""What joins names in no language, so that one is enough for a remark."""
_JOINERS = {"/": r"\s*/\s*", "+": r"\s*\+\s*", "&": r"\s*&\s*", " ": r"\s+"}
"""What joins names in tables, but also stands in names, so that the parts must be names too."""


class Remark(NamedTuple):
    """A label that may be wrong."""

    kind: str
    """``alike`` (the same as another but for its writing) or ``joined`` (several in one)."""
    label: str
    reason: str


def remarks_on(labels: Sequence[str]) -> list[Remark]:
    """Return what is odd about labels, at most one remark a label."""
    first: dict[str, Remark] = {}
    for remark in (*_alike(labels), *_joined(labels)):
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

    That is letter case, blanks, underscores, invisible characters, quotes, and the Unicode form
    (NFKC, so that full-width and joined letters count as the usual ones).
    """
    if label.isascii():  # the same, faster
        return label.lower().translate(_UNSEEN_ASCII)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(c for c in text if not (c.isspace() or c in QUOTES or c == "_" or _invisible(c)))


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
                f"({label!a}) is {other!r} ({other!a}) but for case, blanks, quotes or characters "
                "that are not seen",
            )
        elif not bare and not label.isascii():
            yield Remark("alike", label, f"({label!a}) has no character that is seen")


def _joined(labels: Sequence[str]) -> Iterator[Remark]:
    """Yield labels that look like several."""
    names = {plain(label) for label in labels}
    parts_of = {
        joiner: {label: parts for label in labels if len(parts := _parts(label, pattern)) > 1}
        for joiner, pattern in _JOINERS.items()
    }
    recurring = {joiner: _recurring(split.values()) for joiner, split in parts_of.items()}
    for label in labels:
        if label.startswith(("[", "(", "{")) and label.endswith(("]", ")", "}")):
            yield Remark("joined", label, "is in brackets, as a list is written")
        elif len([part for part in _LISTS.split(label) if part]) > 1:
            mark = next(mark for mark in "|,;\t" if mark in label)
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


def _parts(label: str, pattern: str) -> list[str]:
    return [bare for part in re.split(pattern, label) if (bare := plain(part))]


def _known(
    parts: Sequence[str], joiner: str, names: set[str], recurring: set[str]
) -> Sequence[str]:
    """Return the parts if they are likely to be labels, else nothing.

    A blank stands in many names, so that all parts must be labels, or all must stand in other
    labels, some of them at other places, which the words of a name rarely do.
    """
    if joiner == " ":
        return parts if names.issuperset(parts) or recurring.issuperset(parts) else ()
    if names.issuperset(parts) or recurring.issuperset(parts):
        return parts
    return [part for part in parts if part in names]


def _recurring(splits: Collection[Sequence[str]]) -> set[str]:
    """Return parts that stand in several labels, if any stands now first and now not."""
    count = Counter(part for parts in splits for part in set(parts))
    first = {parts[0] for parts in splits}
    later = {part for parts in splits for part in parts[1:]}
    return {part for part, number in count.items() if number > 1} if first & later else set()
