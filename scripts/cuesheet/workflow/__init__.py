"""The run for rules/common.smk: configuration, datasets, and the checks before any job starts.

May import `report` and what that may import.
"""
