"""The annotation stages: which frames each request shows, and how replies become language rows.

May import `serving` and what that may import.
"""
