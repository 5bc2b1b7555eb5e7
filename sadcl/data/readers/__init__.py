"""Readers, one module for each published layout of files; :mod:`sadcl.data.load` says how to add
one."""
