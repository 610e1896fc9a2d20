"""Every file that one rule writes and another reads, typed, with its path; the language rows.

May import `vlm`, `config` and the top-level modules.
"""
