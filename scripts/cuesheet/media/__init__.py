"""Video and image frames: packet index, exact decoding, keyframes, clips.

May import `artifacts` and what that may import.
"""
