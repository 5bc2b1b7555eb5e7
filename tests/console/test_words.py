"""Numbers, durations and settings as text."""

from sadcl.console import words
from sadcl.console.words import clock_text, settings_text


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


def test_numbers_as_text():
    assert [words.bytes_text(n) for n in (0, 999, 1234, 2.97e7)] == [
        "0 bytes",
        "999 bytes",
        "1.23 kB",
        "29.7 MB",
    ]
    counts = [words.count_text(1, "run"), words.count_text(2000, "run")]
    assert counts == ["1 run", "2,000 runs"]
