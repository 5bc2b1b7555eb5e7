"""A study as one page of HTML that opens offline."""
