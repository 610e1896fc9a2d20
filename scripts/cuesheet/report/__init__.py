"""What a person looks at and corrects: summary, report, review page, comparison, dataset card.

May import `evaluation` and what that may import.
"""
