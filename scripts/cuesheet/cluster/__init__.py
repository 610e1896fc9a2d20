"""Shards of episodes: assignment, plan, job and status.

May import `workflow` and what that may import.
"""
