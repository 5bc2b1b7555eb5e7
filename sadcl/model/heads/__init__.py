"""Networks, one published method in each module."""
