"""The entry of the command ``sadcl``, which imports nothing before an interruption is silent."""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process; Ctrl-C while its modules load ends it silently."""
    try:
        from sadcl.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()
