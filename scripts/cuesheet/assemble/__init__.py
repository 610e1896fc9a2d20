"""From stage files to a dataset: validation, merge, metadata, verification, export, conversion.

May import `annotate` and what that may import.
"""
