"""The settings: typed models, how they are read, what is reported when they are wrong, and the
files generated from them. Knows no dataset.

May import `errors`, `files` and `text`.
"""
