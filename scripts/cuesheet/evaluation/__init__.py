"""Scores of annotations against references and baselines.

May import `assemble` and what that may import.
"""
