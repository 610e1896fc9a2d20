"""What people look at and correct: summary, report, review page, comparison, dataset card.

May import `evaluation` and what that may import.
"""
