"""Labels that a table probably means otherwise; what is right as it is gets no remark."""

import time
import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sadcl.data.label_names import plain, remarks_on, warning_of
from sadcl.data.readers import label_lists, scenes

NAMES = st.text(st.characters(categories=["Ll", "Lu", "Lo", "Nd"]), min_size=2, max_size=8)
NAMES = NAMES.filter(lambda name: plain(name) and not name.isdigit())
INVISIBLE = ["\u200b", "\u200d", "\ufeff", "\u2060", "\u00ad", "\ufe0f", "\u3164"]


def disguised(name):
    """Ways to write a name that look the same, or nearly."""
    middle = len(name) // 2
    return [
        *(name[:middle] + sign + name[middle:] for sign in (*INVISIBLE, " ", "\u00a0", "_")),
        *(f"{mark}{name}{mark}" for mark in "'\"”`"),
        *(f"{name}{stop}" for stop in ".:!"),
        *(change(name) for change in (str.upper, str.lower, str.title, str.swapcase)),
        *(unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD")),
        f" {name}",
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=6, unique_by=plain), st.data())
def test_a_label_in_another_writing_is_found(names, data):
    assume(not remarks_on(names))
    name = data.draw(st.sampled_from(names))
    other = data.draw(st.sampled_from(disguised(name)))
    assume(other not in names)
    kinds = {remark.kind for remark in remarks_on([*names, other])}
    assert kinds & {"alike", "garbled"}  # an invisible sign may also look like a wrong encoding


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NAMES, min_size=3, max_size=6, unique_by=plain),
    st.sampled_from(
        [
            *(
                "|",
                ",",
                ", ",
                ";",
                "/",
                " / ",
                "+",
                "&",
                " & ",
                " ",
                "\t",
                "、",
                "，",
                "；",
                "｜",
                "،",
            ),
            *("-", " - ", " – ", "_", "__", ":", "\\", " > ", "~", "#", ".", " and ", "・", "•"),
        ]
    ),
    st.booleans(),
)
def test_labels_joined_to_one_are_found(names, joiner, alone):
    """With the single labels beside them, or in pairs only."""
    joined = [joiner.join((names[i - 1], name)) for i, name in enumerate(names)]
    assume(not remarks_on(names))
    found = remarks_on([*names, *joined] if alone else joined)
    assert {remark.label for remark in found if remark.kind == "joined"} == set(joined)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("traffic light", "traffic-light"),
        ("e-bike", "e\u2011bike"),
        ("cat", "c\u0430t"),
        ("cat", "\u0441\u0430t"),
        ("7", "7.0"),
        ("7", "007"),
        ("T1", "T-1"),
    ],
)
def test_two_writings_of_a_name(one, other):
    (remark,) = remarks_on([one, other])
    assert (remark.kind, remark.label) == ("alike", other)


@pytest.mark.parametrize("label", ["\u0412US", "d\u03bfg", "b\u043ex 2"])
def test_a_word_of_two_scripts_is_found_alone(label):
    assert [remark.kind for remark in remarks_on(["cat", label])] == ["alike"]


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(min_codepoint=0xC0, max_codepoint=0x2FF, categories=["Ll"]), min_size=1)
)
def test_a_name_in_another_encoding_is_found(name):
    assume(not remarks_on([name]))
    encoded = name.encode()
    for encoding in ("cp1252", "latin-1"):
        try:
            garbled = encoded.decode(encoding)
        except UnicodeDecodeError:
            continue
        assert {remark.label for remark in remarks_on([name, garbled])} == {garbled}
    lost = name.encode("ascii", errors="replace").decode().replace("?", "\ufffd")
    assert remarks_on([lost])[0].kind == "garbled"


@pytest.mark.parametrize("label", ["caf&eacute;", "Q&amp;A", "hot%20dog", "caf%C3%A9", "it&#39;s"])
def test_an_escaped_name_is_found(label):
    assert [remark.kind for remark in remarks_on(["cat", label])] == ["garbled"]


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "NULL", "N/A", "<NA>", "?"])
def test_what_programs_write_for_no_value_is_found(label):
    assert [remark.kind for remark in remarks_on(["cat", label])] == ["empty"]


@pytest.mark.parametrize("text", ["['cat', 'dog']", '["cat","dog"]', "[cat", "('cat', 'dog')"])
def test_a_list_that_was_not_read_as_one_is_found(text):
    assert [remark.label for remark in remarks_on(["bird", text])] == [text]


@pytest.mark.parametrize(
    "labels",
    [
        *(labels for name, labels in label_lists.LABELS.items()),
        [label.name for label in scenes.LABELS],
        ["red car", "blue car", "red bus", "blue bus"],
        ["C++", "C#", "R&B", "AC/DC", "dog (small)", "18+", "x-ray", "50 %"],
        ["1-2", "12", "100%ad", "AT&T", "5 µm", "β-carotene", "кот", "nano", "No. 1", "1.5", "15"],
        ["fire-truck", "fire-man", "post-man", "animal: dog", "animal: cat", "rock and roll"],
        ["かき", "かぎ", "ma", "má", "mà"],
        ["cat"],
        [],
    ],
    ids=lambda labels: str(len(labels)),
)
def test_right_labels_have_no_remark(labels):
    assert remarks_on(labels) == []
    assert warning_of(labels) == ""


def test_a_warning_is_one_short_paragraph():
    warning = warning_of(["a", "b", *(f"a|{i}" for i in range(500))])
    assert warning.startswith("500 of 502 labels look wrong: 'a|0' has '|'")
    assert "and 497 more" in warning
    assert "\n" not in warning
    assert len(warning) < 400


def test_many_labels_take_no_time():
    labels = [f"label {i}/{i + 1}" for i in range(20_000)]
    start = time.process_time()
    remarks_on(labels)
    assert time.process_time() - start < 1
