"""An episode of plain images, and a stage that is connected to a server by a real gateway."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from chat_server import ChatServer, completion, serving
from gateway_setup import gateway_before
from PIL import Image

from cuesheet.annotate.stage import Stage, open_stage
from cuesheet.config import prompt_files

PROMPTS = Path(__file__).resolve().parents[2] / "config" / "prompts"
CAMERA = "observation.images.front"
FPS = 10


def write_keyframes(
    folder: Path,
    *,
    seconds: float,
    task: str = "put the red block into the bowl",
    size: tuple[int, int] = (64, 48),
    per_second: int = 2,
    task_starts: Sequence[tuple[int, str]] = (),
    vqa_frames: int = 1,
    fine_per_second: int = 0,
) -> Path:
    """A keyframes folder of one camera, `per_second` frames of one color each and the last one.

    Every second begins with `vqa_frames` frames for visual questions.
    """
    length = round(seconds * FPS)
    grid = sorted({*range(0, length, FPS // per_second), length - 1})
    vqa = [index for index in range(length) if index % FPS < vqa_frames]
    fine = sorted({*range(0, length, FPS // fine_per_second)}) if fine_per_second else []
    indices = sorted({*grid, *vqa, *fine})
    (folder / CAMERA).mkdir(parents=True)
    frames = []
    for index in indices:
        name = f"{CAMERA}/{index:06d}.png"
        Image.new("RGB", size, (index % 256, 90, 160)).save(folder / name)
        frames.append(
            {
                "frame_index": index,
                "timestamp_s": index / FPS,
                "file": name,
                "width": size[0],
                "height": size[1],
            }
        )
    content = {
        "format": 1,
        "dataset": "made",
        "episode_index": 0,
        "task": task,
        "task_starts": [{"frame_index": index, "task": text} for index, text in task_starts],
        "fps": float(FPS),
        "timestamps_s": [index / FPS for index in range(length)],
        "keyframes": {CAMERA: frames},
        "grid": grid,
        "vqa": vqa,
        "fine": fine,
    }
    (folder / "keyframes.json").write_text(json.dumps(content))
    return folder


@asynccontextmanager
async def asking(
    tmp_path: Path,
    monkeypatch: Any,
    answer: Callable[[str, str], Any],
    *,
    name: str = "plan",
    sampling: dict[str, Any] | None = None,
    concurrency: int = 64,
    **episode: Any,
) -> AsyncIterator[tuple[Stage, ChatServer]]:
    """A stage whose server replies `answer(kind, question)`, awaited if need be, as JSON."""
    keyframes = write_keyframes(tmp_path / "keyframes", **episode)

    async def behave(body: dict[str, Any], _: int) -> dict[str, Any]:
        kind = body["response_format"]["json_schema"]["name"]
        value = answer(kind, words_of(body))
        if hasattr(value, "__await__"):
            value = await value
        return completion(json.dumps(value))

    model_settings = {
        "model": "test-model",
        "serve": "external",
        "sampling": sampling or {},
        "images": {"format": "png"},
    }
    stages = {
        "plan": prompt_files.PLAN,
        "interjections": prompt_files.INTERJECTIONS,
        "vqa": prompt_files.VQA,
        "inspection": prompt_files.INSPECT,
        "vocabulary": prompt_files.of_stages(["vocabulary"]),
    }
    async with (
        serving(behave) as server,
        gateway_before(tmp_path, server.url, concurrency=concurrency) as running,
    ):
        servers = {str(keyframes): str(running.link.server_file)}
        monkeypatch.setenv("CUESHEET_SERVER_FILE", json.dumps(servers))
        async with open_stage(
            name,
            keyframes=keyframes,
            prompts=[str(PROMPTS / f"{one}.md") for one in stages[name]],
            model_settings=model_settings,
        ) as stage:
            yield stage, server


def words_of(body: dict[str, Any]) -> str:
    """The question of a request."""
    return body["messages"][1]["content"][-1]["text"]


def media_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The images and clips of a request."""
    return body["messages"][1]["content"][:-1]


def kind_of(body: dict[str, Any]) -> str:
    """The reply class that a request asks for."""
    return body["response_format"]["json_schema"]["name"]
