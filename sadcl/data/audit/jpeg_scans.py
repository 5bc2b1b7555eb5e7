"""Which scans a JPEG file has: a file that was cut between two of them decodes without a complaint.

A progressive file has its picture several times over, each scan with more detail. Decoders make a
blurred or grey picture of those that there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BASELINE, _PROGRESSIVE, _SCAN, _END = (0xC0, 0xC1), 0xC2, 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker that ends a scan, or begins a segment with a length."""
_COEFFICIENTS = 64


def missing_scans(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield a remark (kind and detail) if no scan completes a coefficient of a component.

    Args:
        data: the content of a file; of other formats than JPEG nothing is yielded.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    incomplete: dict[int, list[bool]] = {}
    is_progressive, at = False, 2
    while (match := _MARKER.search(data, at)) is not None:
        marker, at = data[match.start() + 1], match.end()
        if marker == _END:
            break
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2])]
        at += 2 + len(segment)
        if marker in (*_BASELINE, _PROGRESSIVE) and len(segment) > 5:
            is_progressive = marker == _PROGRESSIVE
            ids = segment[6 : 6 + 3 * segment[5] : 3]
            incomplete = {one: [True] * _COEFFICIENTS for one in ids}
        elif marker == _SCAN and segment:
            ids = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, bits = (*segment[1 + 2 * segment[0] :][:3], 0, 0, 0)[:3]
            if is_progressive and bits & 0x0F:  # a later scan has the lowest bits
                continue
            places = range(first, last + 1) if is_progressive else range(_COEFFICIENTS)
            for one in set(ids) & incomplete.keys():
                for place in set(places) & set(range(_COEFFICIENTS)):
                    incomplete[one][place] = False
            if not is_progressive and not any(map(any, incomplete.values())):
                return
    if lacking := sum(any(each) for each in incomplete.values()):
        what = f"scans of {lacking} of {len(incomplete)} colour channels"
        yield "damaged", f"{what} are not there: cut, and closed with an end mark?"
