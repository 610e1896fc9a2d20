"""What rules/common.smk knows: the run, its datasets, and the checks before any job starts.

May import `report` and what that may import.
"""
