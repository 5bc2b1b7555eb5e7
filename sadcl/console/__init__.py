"""What people see: sentences, tables, progress bars, and how a command ends."""

from sadcl.console.ending import guarded, resumable
from sadcl.console.table import (
    cell_text,
    is_fitted,
    print_note,
    show_fields,
    show_table,
    table_form,
)
from sadcl.console.terminal import (
    banner,
    confirm,
    console,
    print_command,
    print_text,
    progress_bar,
    working,
)
from sadcl.console.words import (
    bytes_text,
    clock_text,
    count_text,
    left_text,
    remaining_text,
    setting_text,
    settings_text,
    short_names,
)

__all__ = [
    "banner",
    "bytes_text",
    "cell_text",
    "clock_text",
    "confirm",
    "console",
    "count_text",
    "guarded",
    "is_fitted",
    "left_text",
    "print_command",
    "print_note",
    "print_text",
    "progress_bar",
    "remaining_text",
    "resumable",
    "setting_text",
    "settings_text",
    "short_names",
    "show_fields",
    "show_table",
    "table_form",
    "working",
]
