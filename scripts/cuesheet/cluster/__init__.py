"""Shards of episodes: assignment, plan, job, lease and status.

May import `workflow` and what that may import.
"""
