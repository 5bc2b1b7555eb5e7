"""What people see: plain lines here, because a test has no terminal; and a table where there is one."""

import errno
import io
import signal
import time

import pytest
from rich.console import Console

from sadcl import console
from sadcl.console import clock_text, guarded, settings_text
from sadcl.errors import TrialFailed, UserError
from sadcl.study.live_table import LiveTable


def test_settings_in_a_few_characters():
    params = {
        "loss.tau": 0.123456,
        "bank.epsilon": 0.5,
        "prototypes.epsilon": 0.25,
        "bank.policy": "slot",
    }
    assert settings_text(params) == "tau=0.123 bank.epsilon=0.5 prototypes.epsilon=0.25 policy=slot"
    assert settings_text({}) == ""


def test_clock():
    assert [clock_text(s) for s in (None, 0, 65.9, 3909)] == ["?", "0:00", "1:05", "1:05:09"]


EVENTS = [
    {"key": "k1", "status": "running", "what": "search 1a2b", "params": {"loss.tau": 0.1}},
    {
        "key": "k1",
        "stage": 2,
        "epoch": 1,
        "epochs": 4,
        "metrics": {"val_mAP": 41.234, "admitted": 12.4, "anchors": 9.0},
    },
    {"key": "k2", "status": "running", "what": "baseline s0", "params": {}},
    {"key": "k2", "stage": 1, "epoch": 1, "epochs": 2, "metrics": {"val_mAP": 99.0}},
    {
        "key": "k1",
        "stage": 2,
        "epoch": 2,
        "epochs": 4,
        "metrics": {"val_mAP": 39.0, "admitted": 0.0, "anchors": 0.0},
    },
    {"key": "k1", "status": "complete", "val_mAP": 41.234, "test_mAP": None},
    {"key": "k2", "status": "failed", "cause": "Diverged: stage 1, step 3"},
    {"key": "k3", "status": "complete", "val_mAP": None, "test_mAP": 55.5},
]


def watch(monkeypatch, terminal, events=EVENTS, epochs=10, width=120):
    out = io.StringIO()
    monkeypatch.setattr(
        console,
        "console",
        Console(file=out, force_terminal=terminal, soft_wrap=not terminal, width=width, height=30),
    )
    waiting = list(events)
    with LiveTable(
        "study x", lambda: [waiting.pop(0) for _ in range(len(waiting))], epochs
    ) as shown:
        time.sleep(0.7)
    return shown, out.getvalue()


def test_plain_lines_say_trial_settings_epoch_figure_best_and_time_left(monkeypatch):
    shown, text = watch(monkeypatch, terminal=False)
    lines = [line.split("] ", 1)[1] for line in text.splitlines()]
    assert lines[0] == "search 1a2b: started with tau=0.1"
    start = "search 1a2b: stage 2 epoch 1/4, held-out mAP 41.23, 12 rows a label admitted; best of search 41.23, "
    assert lines[1] == start + "time left not known yet"
    assert lines[4].endswith(" left")
    assert "best of search 41.23, about 0:0" in lines[4]
    assert "best of search 41.23" in lines[3]  # the baseline's 99 is no trial of the search
    assert "0.0 rows a label admitted (THE BANK ADMITS NOTHING: lower bank.epsilon; " in lines[4]
    assert "THE SAMPLE CONTRAST SEES NOTHING" in lines[4]
    assert "best of search 41.23" in lines[4]
    assert lines[5:] == [
        "search 1a2b: complete, held-out mAP 41.23",
        "baseline s0: FAILED: Diverged: stage 1, step 3",
        "k3: complete, test mAP 55.50",
    ]
    assert shown.done == 3


def test_a_terminal_shows_a_table(monkeypatch):
    _, text = watch(monkeypatch, terminal=True)
    for word in (
        "search 1a2b",
        "tau",
        "0.1",
        "2: 2/4",
        "rows a label",
        "failed",
        "complete",
        "3/10 epochs",
        "study x",
    ):
        assert word in text


def test_a_long_epoch_is_heard_of(monkeypatch):
    monkeypatch.setattr(console, "_PLAIN_SECONDS", 0)
    start = {"key": "k", "status": "running", "what": "stage1 s0", "params": {}}
    beats = [start, {"key": "k", "stage": 1, "epoch": 1, "part": 0.25}]
    shown, text = watch(monkeypatch, terminal=False, events=beats)
    assert "stage1 s0: stage 1 epoch 1, 25% of it; about " in text
    assert shown.left() == pytest.approx(39 * (time.monotonic() - shown._trains), rel=0.05)


@pytest.mark.parametrize("terminal", [False, True])
def test_words_about_a_worker_are_seen_beside_a_table_too(monkeypatch, terminal):
    about = [
        {"key": "k1", "late": "HANGS: rank 1"},
        {"key": "k1", "rank": 1, "error": "RuntimeError: gone (rank 1 of 2 on a)"},
    ]
    _, text = watch(monkeypatch, terminal=terminal, events=EVENTS[:1] + about)
    assert "search 1a2b: HANGS: rank 1" in text
    assert "search 1a2b: RuntimeError: gone (rank 1 of 2 on a)" in text


def test_a_source_that_fails_does_not_end_the_block():
    def broken():
        raise ConnectionError

    with LiveTable("x", broken, 1) as shown:
        time.sleep(0.7)
    assert shown.rows == {}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("Wrong field."), 2, "error: Wrong field."),
        (TrialFailed("It diverged."), 1, "failed: It diverged."),
        (KeyboardInterrupt(), 130, "Stopped. Nothing is lost; run the same command to resume."),
    ],
)
def test_a_command_ends_with_one_paragraph_and_a_code(capsys, error, code, words):
    with pytest.raises(SystemExit) as end, guarded():
        raise error
    assert end.value.code == code
    assert words in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), guarded():
        _ = 1 / 0


def test_a_disk_that_fails_is_said_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as end, guarded():
        raise OSError(errno.EROFS, "Read-only file system", "/runs/optuna")
    assert end.value.code == 2
    assert (
        "A disk failed: [Errno 30] Read-only file system: '/runs/optuna'" in capsys.readouterr().err
    )


def _interrupted(number):
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise OSError("a lock is not held") from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_whatever_a_library_makes_of_it(capsys, number):
    before = {of: signal.getsignal(of) for of in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end, guarded():
            _interrupted(number)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
    finally:
        for of, handler in before.items():
            signal.signal(of, handler)
    assert end.value.code == 130
    assert "Nothing is lost" in capsys.readouterr().err


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    with console.progress_bar("reading") as show:
        show("looking")(1, 2000)
        monkeypatch.setattr(console, "_PLAIN_SECONDS", -1)
        show("looking")(1500, 2000)
    assert capsys.readouterr().err == "looking: 1,500 of 2,000\n"


def test_a_long_line_is_wrapped_on_a_terminal_and_whole_elsewhere(monkeypatch):
    for terminal, text in ((True, "  one [b]two\n    three\n"), (False, "  one [b]two three\n")):
        out = io.StringIO()
        soft = Console(file=out, force_terminal=terminal, width=12, soft_wrap=not terminal)
        monkeypatch.setattr(console, "console", soft)
        console.print_text("  one [b]two three")
        assert out.getvalue() == text


def test_a_question_that_nobody_can_answer_is_an_error(monkeypatch):
    console.confirm("This removes 2 runs.", yes=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UserError, match=r"This removes 2 runs\. Pass --yes to continue"):
        console.confirm("This removes 2 runs.", yes=False)


@pytest.mark.parametrize("answer", ["y", "Yes", "", "n"])
def test_a_question_is_answered_on_a_terminal(monkeypatch, answer):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(console.console, "input", lambda prompt: answer)
    if answer.lower() in ("y", "yes"):
        console.confirm("This removes 2 runs.", yes=False)
    else:
        with pytest.raises(UserError, match=r"Nothing was changed\."):
            console.confirm("This removes 2 runs.", yes=False)


def test_numbers_as_text():
    assert [console.bytes_text(n) for n in (0, 999, 1234, 2.97e7)] == [
        "0 bytes",
        "999 bytes",
        "1.23 kB",
        "29.7 MB",
    ]
    counts = [console.count_text(1, "run"), console.count_text(2000, "run")]
    assert counts == ["1 run", "2,000 runs"]


def test_names_in_a_table_are_no_markup(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, force_terminal=True, width=80))
    console.show_table([{"[/x] [w]": "[/y] :duck:"}], ["[/x] [w]"])
    assert "[/x] [w]" in out.getvalue()
    assert "[/y] :duck:" in out.getvalue()
