"""Two workers on this machine that answer one question after the other.

They start at the first question and stay until this process ends, because starting them takes
longer than any question.
"""

from __future__ import annotations

import atexit
import contextlib
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import distributed as dist
from torch import multiprocessing

WORKERS = 2
SECONDS = 300
"""How long both may take to answer, their start included."""


class _Worker(NamedTuple):
    process: Any
    connection: Connection


_running: list[_Worker] = []


def ask_both(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function on two workers of one process group (gloo), with the same arguments.

    Args:
        function: defined at the top of a module, as are the parts among its arguments.

    Returns:
        What each worker returned, in the order of their ranks.

    Raises:
        AssertionError: where the arguments cannot be sent, a worker fails, or one waits for ever
            for a call that the other does not make.
    """
    if not _running:
        _start()
    for worker in _running:
        try:
            worker.connection.send((function, arguments))
        except Exception as error:  # before anything is sent, and so to none of them
            raise AssertionError(
                f"The part cannot be sent to another process ({error}). Define it with a name at "
                "the top of a module."
            ) from None
    answers = []
    for rank, worker in enumerate(_running):
        try:
            is_there = worker.connection.poll(SECONDS)
            answer = worker.connection.recv() if is_there else None
        except EOFError:
            answer = (False, "its process has ended")
        answers.append(answer)
        if answer is None or not answer[0]:
            stop()
            reason = answer[1] if answer else "it waits for the other one: make the same collective"
            reason += "" if answer else " calls on every worker, also on one without anything to do"
            raise AssertionError(f"Worker {rank} of {WORKERS} fails: {reason}.")
    return [answer[1] for answer in answers if answer is not None]


def _start() -> None:
    context = multiprocessing.get_context("spawn")
    folder = tempfile.mkdtemp(prefix="sadcl-testing-")
    for rank in range(WORKERS):
        ours, theirs = context.Pipe()
        process = context.Process(target=_answer, args=(theirs, rank, folder), daemon=True)
        process.start()
        _running.append(_Worker(process, ours))
    atexit.register(stop)


def stop() -> None:
    """End both workers; the next question starts new ones."""
    for worker in _running:
        worker.process.terminate()
        worker.process.join()
        worker.connection.close()
    _running.clear()


def _answer(connection: Connection, rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS
    )
    with contextlib.suppress(EOFError):
        while True:
            try:
                function, arguments = connection.recv()
                connection.send((True, function(*arguments)))
            except EOFError:
                raise
            except Exception as error:
                text = str(error).strip() or type(error).__name__
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{place.filename.rpartition('/')[2]} line {place.lineno}"
                connection.send((False, f"{type(error).__name__}: {text} ({where})"))
