"""One published layout of files a module."""
