"""A search to make mistakes with, and what a command says of them."""

from __future__ import annotations

import pytest

from sadcl import Search, main, recipes
from sadcl.search import Float
from tests.conftest import TINY

DEMO = recipes.demo().override(TINY)
SEARCH = Search(
    name="wrong",
    question="What is wrong?",
    base=recipes.coco14(),
    demo=DEMO,
    space={"loss.tau": Float(0.05, 0.5)},
)


def refused(capsys, *words, search=SEARCH):
    """Standard error of a command that ends with one paragraph and exit code 2."""
    with pytest.raises(SystemExit) as end:
        main(search, [str(w) for w in words])
    captured = capsys.readouterr()
    assert end.value.code == 2, captured
    assert "Traceback" not in captured.err + captured.out
    return captured.err
