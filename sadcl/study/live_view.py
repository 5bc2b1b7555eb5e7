"""What a terminal shows while trials run: as many lines as fit, none of them wrapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

from sadcl.console import clock_text, remaining_text, settings_text

_STYLES = {"failed": "red", "complete": "green", "pruned": "yellow", "running": "cyan"}
_BAR = 8
"""Characters of a trial's bar."""
_STATE = 8
_WHERE = 20
"""Characters of ``stage 1, epoch 12/80``."""
_FIGURE = 8
_GAPS = 8


@dataclass
class TrialLine:
    """A trial, as far as the terminal shows it."""

    title: str
    params: Mapping[str, Any] = field(default_factory=dict)
    status: str = ""
    stage: int = 0
    epoch: int = 0
    """The last one that has ended; with ``progress``, the one that is under way."""
    epochs: int = 0
    """Of the stage; 0 until its first epoch has ended."""
    progress: float = 0.0
    """Share of the epoch that is under way."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Of the last epoch."""
    val_mAP: float | None = None
    """Of the epoch that was selected, once the trial has ended."""
    test_mAP: float | None = None

    def figure(self) -> float | None:
        """The held-out mAP in percent: of the selected epoch, or of the last one so far."""
        has_ended = self.status in ("complete", "pruned")
        return self.val_mAP if has_ended else self.metrics.get("val_mAP")


@dataclass(frozen=True)
class Footer:
    """What stays at the bottom: the best trial so far, and how far the plan is."""

    best: float | None
    best_title: str
    best_params: Mapping[str, Any]
    epochs_done: int
    epochs: int
    seconds_left: float | None
    is_limit: bool = False
    """Whether epochs and time are the most that there may be."""
    seconds_taken: float | None = None
    """Of the whole start, once it has ended."""


def live_view(
    title: str, lines: Sequence[TrialLine], footer: Footer, width: int, height: int
) -> Group:
    """Lay out the trials and the footer within a terminal.

    Running trials come last, with their settings below them; of those that have ended, the latest
    are shown, as far as there is room.

    Args:
        title: Of what runs.
        lines: The trials, in the order of their start.
        footer: What is always shown.
        width: Of the terminal, in characters.
        height: Of the terminal, in lines.

    Returns:
        Lines that the terminal does not wrap.
    """
    title_width = _title_width(lines, width)
    bottom = list(_footer(footer, width))
    room = max(height - 3 - len(bottom), 2)
    running = [list(_trial(line, title_width)) for line in lines if line.status == "running"]
    ended = [list(_trial(line, title_width)) for line in lines if line.status != "running"]
    while sum(map(len, running)) > room and any(len(block) > 1 for block in running):
        running = [block[:1] for block in running]
    shown = running[-room:]
    room -= sum(map(len, shown))
    hidden = len(running) - len(shown) + max(len(ended) - max(room, 0), 0)
    ended = ended[max(len(ended) - room, 0) :] if room > 0 else []
    head = f"{title}{f' ({hidden:,} more)' if hidden else ''}"
    texts = [Text(head, style="bold"), _heading(title_width)]
    texts += [text for block in (*ended, *shown) for text in block]
    texts += bottom
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
        text.truncate(width, overflow="ellipsis")
    return Group(*texts)


def _title_width(lines: Sequence[TrialLine], width: int) -> int:
    longest = max((cell_len(line.title) for line in lines), default=0)
    return max(min(width - _STATE - _WHERE - _BAR - _FIGURE - _GAPS, longest), 12)


def _heading(title_width: int) -> Text:
    where = "stage and epoch".ljust(_WHERE + 2 + _BAR)
    return Text(f"{'state'.ljust(_STATE)}  {'trial'.ljust(title_width)}  {where}  held-out", "dim")


def _trial(line: TrialLine, title_width: int) -> Iterator[Text]:
    where, bar = "", ""
    if line.status == "running":
        of = line.epoch + (0 if line.progress or not line.epoch else 1)
        done = line.epoch - 1 + line.progress if line.progress else line.epoch
        if line.epochs and of > line.epochs:
            of, done = line.epochs, line.epochs
        if line.stage:
            where = f"stage {line.stage}, epoch {of}/{line.epochs or '?'}"
        bar = _bar(done / line.epochs if line.epochs else 0.0, _BAR)
    elif line.test_mAP is not None:
        where = f"test {line.test_mAP:.2f}"
    figure = line.figure()
    text = Text()
    text.append(line.status.ljust(_STATE), style=_STYLES.get(line.status, ""))
    text.append(f"  {_shortened(line.title, title_width)}  {where.ljust(_WHERE)}  ")
    text.append(bar.ljust(_BAR), style="cyan")
    text.append("  " + ("" if figure is None else f"{figure:.2f}").rjust(_FIGURE))
    yield text
    settings = settings_text(line.params)
    if line.status == "running" and settings:
        yield Text(f"{'':{_STATE}}  {settings}", style="dim")


def _shortened(text: str, width: int) -> str:
    """Cut a title before its last word, which is the seed."""
    if cell_len(text) > width:
        end = text[-min(len(text) - text.rfind(" "), width // 2) :]
        text = f"{text[: width - len(end) - 1].rstrip()}…{end}"
    return text.ljust(width)


def _bar(share: float, width: int) -> str:
    full = round(min(max(share, 0.0), 1.0) * width)
    return "━" * full + "╌" * (width - full)


def _footer(footer: Footer, width: int) -> Iterator[Text]:
    yield Text("")
    if footer.best is not None:
        title = f", {footer.best_title}" if footer.best_title else ""
        settings = settings_text(footer.best_params)
        yield Text(f"best so far: held-out {footer.best:.2f}{title}  {settings}".rstrip(), "green")
    share = footer.epochs_done / footer.epochs if footer.epochs else 1.0
    if footer.seconds_taken is None:
        left = remaining_text(footer.seconds_left, footer.is_limit)
    else:
        left = f"ended after {clock_text(footer.seconds_taken)}"
    bar, of = _bar(share, min(24, width // 3)), " of at most " if footer.is_limit else "/"
    yield Text(f"{bar} {footer.epochs_done:,}{of}{footer.epochs:,} epochs; {left}", style="bold")
