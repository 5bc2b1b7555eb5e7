"""The start of a run or a study: what is checked before, and how the parts are put together."""
