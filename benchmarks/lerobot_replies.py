"""A model server that answers the requests of LeRobot's annotator with valid replies.

    python benchmarks/lerobot_replies.py --port-file FILE [--subtask-s 2]

The replies have the JSON form that each prompt asks for. Subtasks are `--subtask-s` seconds long.
"""

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from http_replies import send_json

_DURATION = re.compile(r"\[0\.0, ([\d.]+)\]\s+seconds")
_COUNT = re.compile(r"Generate exactly (\d+)")
_QUESTION_TYPE = re.compile(r'question of type "(\w+)"')
_ANSWERS = {
    "bbox": {"detections": [{"label": "cup", "bbox_format": "xyxy", "bbox": [10, 10, 60, 60]}]},
    "keypoint": {"label": "cup", "point_format": "xy", "point": [30, 30]},
    "count": {"label": "cup", "count": 1},
    "attribute": {"label": "cup", "attribute": "color", "value": "red"},
    "spatial": {"subject": "cup", "relation": "on", "object": "table"},
}
# The key in the example at the end of a prompt, and the reply.
_TEXTS = {
    '"description":': {"description": "0.0-2.0s: the gripper moves to the cup and closes."},
    '"memory":': {"memory": "I picked up the cup."},
    '"interjection":': {"interjection": "Pick up the cup, please.", "speech": "On it."},
    '"text": "<the spoken': {"text": "Got it."},
    '"task":': {"task": "pick up the cup and put it into the box"},
}


def reply_to(text: str, subtask_s: float) -> dict[str, Any]:
    """Return the reply to a prompt. Raises ValueError if the prompt is unknown."""
    if '"subtasks": [' in text:
        return {"subtasks": _spans(float(_found(_DURATION, text)), subtask_s)}
    if '"rephrasings":' in text:
        numbers = range(int(_found(_COUNT, text)))
        return {"rephrasings": [f"please do the task in way {number}" for number in numbers]}
    if '"question":' in text:
        kind = _found(_QUESTION_TYPE, text)
        return {"question": f"What is the {kind} of the cup?", "answer": _ANSWERS[kind]}
    for key, reply in _TEXTS.items():
        if key in text:
            return reply
    raise ValueError(f"unknown prompt: {text[-200:]}")


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    if found is None:
        raise ValueError(f"the prompt has no {pattern.pattern}: {text[-200:]}")
    return found[1]


def _spans(duration_s: float, subtask_s: float) -> list[dict[str, Any]]:
    count = max(1, min(8, round(duration_s / subtask_s)))
    step_s = duration_s / count
    return [
        {"text": f"pick up cup {number}", "start": number * step_s, "end": (number + 1) * step_s}
        for number in range(count)
    ]


def _text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def serve(port_file: Path, subtask_s: float) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {
                "role": "assistant",
                "content": json.dumps(reply_to(_text_of(body), subtask_s)),
            }
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
            data = json.dumps({**reply, "choices": [choice], "usage": usage}).encode()
            send_json(self, data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    temporary = port_file.with_suffix(".new")
    temporary.write_text(str(server.server_port))
    temporary.rename(port_file)
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--subtask-s", type=float, default=2.0)
    options = parser.parse_args()
    serve(options.port_file, options.subtask_s)


if __name__ == "__main__":
    main()
