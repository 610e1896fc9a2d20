"""The annotation stages: what is requested about which frames, and the rows made of the replies.

May import `serving` and what that may import.
"""
