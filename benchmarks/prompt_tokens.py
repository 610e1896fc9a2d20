"""Counts requests and tokens of a run by type of request, and how much of them repeats.

    python benchmarks/prompt_tokens.py [--json FILE] [--dataset FOLDER] [--patch 28] [--relabel]

The workflow runs with the default settings and the demo model behind a server that inspects every
request. Image tokens follow the rule of the Qwen-VL models: each side is rounded to a multiple of
the patch (28 pixels for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL), and each patch is one token.
Text tokens are estimated as a quarter of the characters. A prefix cache can reuse the leading parts
of the messages that are identical, byte for byte, in an earlier request.

It also prints the tokens of 20 frames of 640x480 as a contact sheet and as separate images.
"""

import argparse
import base64
import hashlib
import io
import json
import sys
import tempfile
import threading
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import measuring
import slot_server
import workflow_cost
from http_replies import send_json
from measuring import REPOSITORY, Target
from PIL import Image

from cuesheet.annotate.contact_sheet import compose
from cuesheet.artifacts.episode import Keyframe
from cuesheet.config.stages import FramesConfig

DEMO_MODEL = "cuesheet-demo-1"
CHARACTERS_A_TOKEN = 4


def image_tokens(width: int, height: int, patch: int) -> int:
    """Return the tokens of an image whose size is within the limits of the model."""
    return max(1, round(width / patch)) * max(1, round(height / patch))


@dataclass
class Counts:
    """The totals of requests of one type."""

    calls: int = 0
    images: int = 0
    image_tokens: int = 0
    text_tokens: int = 0
    reusable_tokens: int = 0


@dataclass
class Census:
    """Counts every request by the name of its reply schema."""

    patch: int
    counts: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    _seen: set[str] = field(default_factory=set)

    def look_at(self, request: dict[str, Any]) -> None:
        of = self.counts[request["response_format"]["json_schema"]["name"]]
        of.calls += 1
        prefix, cached = "", True
        for part in _parts(request["messages"]):
            tokens = self._tokens(part, of)
            prefix = hashlib.sha256((prefix + json.dumps(part)).encode()).hexdigest()
            cached = cached and prefix in self._seen
            self._seen.add(prefix)
            if cached:
                of.reusable_tokens += tokens

    def _tokens(self, part: dict[str, Any], of: Counts) -> int:
        if part["type"] == "text":
            tokens = len(part["text"]) // CHARACTERS_A_TOKEN
            of.text_tokens += tokens
            return tokens
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            tokens = image_tokens(*image.size, self.patch)
        of.images += 1
        of.image_tokens += tokens
        return tokens


def _parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of all messages in order."""
    parts = []
    for message in messages:
        content = message["content"]
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts


def run(folder: Path, dataset: Path, patch: int, *, relabel: bool) -> Census:
    """Return the counts of a run with the default settings, or also with `plan.relabel`."""
    census, lock = Census(patch), threading.Lock()
    port_file = folder / "port"
    command = [sys.executable, "-m", "demo_vlm", "--port-file", str(port_file)]
    with slot_server.process_with_port(command, port_file) as port:
        upstream = f"http://127.0.0.1:{port}"

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    census.look_at(json.loads(body))
                self._pass(body)

            def _pass(self, body: bytes | None) -> None:
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(upstream + self.path, body, headers)
                with urllib.request.urlopen(request, timeout=120) as response:
                    data = response.read()
                send_json(self, data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        vlm = {"serve": "external", "base_urls": [url], "model": DEMO_MODEL}
        vlm["cache_dir"] = str(folder / "cache")
        settings = {
            "dataset": str(dataset),
            "vlm": vlm,
            "plan": {"relabel": "span" if relabel else "off"},
        }
        workflow_cost.run(folder / "work", settings, 2)
        server.shutdown()
        server.server_close()
    return census


def sheet_and_single_tokens(folder: Path, patch: int) -> tuple[int, int]:
    """Return the tokens of 20 frames of 640x480 as a contact sheet, and as separate images."""
    path = folder / "frame.png"
    Image.new("RGB", (640, 480)).save(path)
    frames = [Keyframe("camera", n, n / 2, path, 640, 480) for n in range(20)]
    layout = FramesConfig()
    sheets = compose(
        frames,
        columns=layout.columns,
        per_sheet=layout.per_sheet,
        tile_width=layout.tile_width,
    )
    single = len(frames) * image_tokens(640, 480, patch)
    return sum(image_tokens(*sheet.image.size, patch) for sheet in sheets), single


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--dataset", type=Path, default=REPOSITORY / "data" / "demo_v3")
    parser.add_argument("--patch", type=int, choices=[28, 32], default=28)
    parser.add_argument("--relabel", action="store_true", help="with `plan.relabel` switched on")
    options = parser.parse_args()
    info = json.loads((options.dataset / "meta" / "info.json").read_text())
    minutes = info["total_frames"] / info["fps"] / 60
    with tempfile.TemporaryDirectory(prefix="tokens.") as name:
        census = run(Path(name), options.dataset.resolve(), options.patch, relabel=options.relabel)
        sheet, single = sheet_and_single_tokens(Path(name), options.patch)
    print(
        f"{'reply':<22}{'calls':>7}{'images':>8}{'image tok.':>12}{'text tok.':>11}{'reusable':>10}"
    )
    total = Counts()
    for kind, of in sorted(census.counts.items()):
        for key, value in vars(of).items():
            setattr(total, key, getattr(total, key) + value)
        print(_line(kind, of))
    print(_line("all", total))
    prompt = total.image_tokens + total.text_tokens
    print(
        f"\nan episode: {total.calls / info['total_episodes']:.1f} calls, "
        f"{prompt / info['total_episodes']:,.0f} prompt tokens; a minute of video: "
        f"{total.calls / minutes:.0f} calls, {prompt / minutes:,.0f} prompt tokens"
    )
    figures = {
        "patch": options.patch,
        "minutes": minutes,
        "by_reply": {kind: vars(of) for kind, of in sorted(census.counts.items())},
        "reusable_share": total.reusable_tokens / prompt,
        "sheet_of_20_frames_tokens": sheet,
        "single_20_frames_tokens": single,
    }
    targets = [
        Target("tokens: contact sheets, times fewer than single images", single / sheet, 1.0)
    ]
    measuring.publish("tokens", targets, figures, options.json)


def _line(name: str, of: Counts) -> str:
    share = of.reusable_tokens / max(1, of.image_tokens + of.text_tokens)
    counts = f"{of.calls:>7}{of.images:>8}{of.image_tokens:>12}{of.text_tokens:>11}"
    return f"{name:<22}{counts}{share:>10.0%}"


if __name__ == "__main__":
    main()
