"""Typed models and paths of the files that rules exchange, and the language rows.

May import `vlm`, `config` and the top-level modules.
"""
