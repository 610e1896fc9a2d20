"""The embedded default: a chat server whose answers come from classical vision.

It is NOT a language model. Replies are computed from the pixels of the request (motion between
frames, regions that stand out by color) and from the words of the request; it needs no weights, no
GPU and no network, and it sees nothing but the HTTP request. Start it with
`python -m demo_vlm`.
"""

MODEL_ID = "cuesheet-offline-1"
