"""Check whether a copy of a data set is right."""
