"""A place for the sockets of loader processes, whose paths must be short."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util

_LONGEST = 70
"""Bytes of a temporary folder to which Python can add /pymp-XXXXXXXX/listener-XXXXXXXX: a socket's
path has at most 103 bytes on macOS."""


def make_socket_folder() -> None:
    """Let Python keep the sockets of this process in /tmp if ``TMPDIR`` is too long for them.

    Python makes the folder once, when it is first asked for; all else stays in ``TMPDIR``.
    """
    before = tempfile.gettempdir()
    if len(os.fsencode(before)) > _LONGEST:
        tempfile.tempdir = "/tmp"
        try:
            util.get_temp_dir()
        finally:
            tempfile.tempdir = before
