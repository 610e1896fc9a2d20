"""Output for people: summary, report, review page, corrections, comparison, dataset card.

May import `evaluation` and what that may import.
"""
