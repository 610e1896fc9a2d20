"""LeRobot datasets: formats v2.1 and v3.0, metadata, hub download, index and its checks.

May import `media` and what that may import.
"""
