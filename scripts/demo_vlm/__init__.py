"""The demo model: a chat server whose replies come from simple classical vision.

It is NOT a language model. Replies are computed from the pixels of the request (motion between
frames, one salient colored region) and from labeled lines of its text; it needs no weights, no GPU
and no network, and it sees nothing but the HTTP request. Start it with `python -m demo_vlm`.
"""

MODEL_ID = "cuesheet-demo-1"
