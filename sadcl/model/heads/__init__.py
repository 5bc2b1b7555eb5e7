"""One published method a module."""
