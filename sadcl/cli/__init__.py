"""The command line: the edge where values become text for people and files for programs."""
