"""The endings that a plot may have."""

from __future__ import annotations

import pytest

from sadcl.errors import UserError
from sadcl.reports import plot_style


@pytest.mark.parametrize("name", ["x.jpg", "png", "x."])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_style.check_ending(name)
