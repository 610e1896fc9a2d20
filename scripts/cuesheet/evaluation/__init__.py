"""Scores of annotations against references and baselines.

May import `assemble` and every package that `assemble` may import.
"""
