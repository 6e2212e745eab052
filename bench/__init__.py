"""Measures router beside its peers, in one run. Start with ``python -m bench list``.

How each figure is taken, and what it does not show, is said in README.md.
"""
