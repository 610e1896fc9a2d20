"""Signals that the robot recorded: gripper strokes, motion, alignment of episodes of one task.

May import `dataset` and what that may import.
"""
