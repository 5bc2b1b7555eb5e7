"""Is a copy of a data set right?"""
