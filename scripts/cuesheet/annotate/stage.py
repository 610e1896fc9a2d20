"""The common part of the annotation stages: settings, images, rows and provenance."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from cuesheet import files, job_log
from cuesheet.annotate import contact_sheet
from cuesheet.artifacts.episode import Episode, Keyframe, read_episode
from cuesheet.artifacts.language import say
from cuesheet.artifacts.stage_files import StageName
from cuesheet.config.prompt_files import VOCABULARY_PROMPTS, bundled_files
from cuesheet.config.stages import FramesConfig
from cuesheet.config.vlm import ImagesConfig
from cuesheet.config.vocabulary import MAX_LABEL_WORDS
from cuesheet.errors import SurroundingsError
from cuesheet.text import counted
from cuesheet.vlm.client import Answer, Clip, Image, Media, Vlm
from cuesheet.vlm.prompts import Prompts
from cuesheet.vlm.replies import LabelCandidates, shorten_label
from cuesheet.vlm.run_environment import (
    SERVER_FILE_VARIABLE,
    SHARED_FOLDER_VARIABLE,
    explain_missing_server,
    find,
)
from cuesheet.vlm.vocabulary import labeled_items, use_own_words, with_vocabulary

Reply = TypeVar("Reply", bound=BaseModel)
# Requests of an episode with several images that are in memory at the same time: enough to keep a
# server busy, few enough to bound the memory for an hour of single frames.
IMAGE_REQUESTS = 8
CutClip = Callable[[int, int], bytes]  # returns the frames [start, end) as an H.264 clip


class Model(Protocol):
    """The receiver of a stage's requests: a connection to the model (`Vlm`), or a rehearsal."""

    model: str | None
    prompts: Mapping[str, str]

    @property
    def calls(self) -> list[dict[str, Any]]: ...

    async def ask(
        self,
        *,
        name: str,
        prompt: str,
        reply: type[Reply],
        system: str,
        media: Sequence[Media],
        text: str,
        needs_media: bool = True,
        sampling: Mapping[str, Any] | None = None,
    ) -> Answer[Reply]:
        """See `Vlm.ask`."""


@dataclass
class Stage:
    """The run of one stage on one episode. Collects rows and warnings."""

    name: StageName
    episode: Episode
    prompts: Prompts
    vlm: Model
    images: ImagesConfig
    sampling: Mapping[str, Any]
    serve: str
    shared_folder: Path | None = None  # for media sent as file URLs; None: sent as data URLs
    vocabulary: tuple[str, ...] = ()  # the labels that the plan may use; () for any
    own_words: bool = False  # whether the plan may use other labels than those of the vocabulary
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IMAGE_REQUESTS))
    warnings: list[str] = field(default_factory=list)
    persistent: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def system(self) -> str:
        return self.prompts.render("system")

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        print(f"WARNING: {message}", flush=True)

    def encode_keyframe(self, frame: Keyframe) -> Image:
        """Return one keyframe at its full size."""
        return self._image(
            *contact_sheet.encode_file(frame.path, self.images.format, self.images.jpeg_quality)
        )

    def frames(self, frames: Sequence[Keyframe]) -> tuple[list[Media], str]:
        """Return keyframes at their full size, and a line with the time of each."""
        lines = [f"Image {n}: {frame.timestamp_s:.2f} s" for n, frame in enumerate(frames, 1)]
        return [self.encode_keyframe(frame) for frame in frames], "\n".join(lines)

    def sheets(self, frames: Sequence[Keyframe], layout: FramesConfig) -> tuple[list[Media], str]:
        """Return contact sheets of `frames` and the text that explains them."""
        sheets = contact_sheet.compose(
            frames,
            columns=layout.columns,
            per_sheet=layout.per_sheet,
            tile_width=layout.tile_width,
        )
        return [self.encode_sheet(sheet) for sheet in sheets], contact_sheet.describe_layout(sheets)

    def encode_sheet(self, sheet: contact_sheet.Sheet) -> Image:
        """Return one contact sheet."""
        return self._image(
            *contact_sheet.encode(sheet.image, self.images.format, self.images.jpeg_quality)
        )

    def clip(self, cut: CutClip, start_frame: int, end_frame: int, fps: float) -> Clip:
        """Return an H.264 clip from which the server samples `fps` frames per second."""
        data = cut(start_frame, end_frame)
        return Clip(data, url=self._file_url(data, "mp4"), fps=fps)

    def _image(self, data: bytes, mime: str) -> Image:
        return Image(data, mime, url=self._file_url(data, mime.rpartition("/")[2]))

    def _file_url(self, data: bytes, extension: str) -> str | None:
        """Store the data in the folder shared with the server, if any, and return its URL."""
        if self.shared_folder is None:
            return None
        digest = hashlib.sha256(data).hexdigest()
        path = self.shared_folder / digest[:2] / f"{digest}.{extension}"
        if not path.exists():
            with files.atomic_path(path) as temporary:
                temporary.write_bytes(data)
        return path.resolve().as_uri()

    async def ask(
        self,
        name: str,
        prompt: str,
        reply: type[Reply],
        media: Sequence[Media] | None,
        values: Mapping[str, object] | None = None,
        sampling: Mapping[str, Any] | None = None,
        text: str | None = None,
    ) -> Answer[Reply]:
        """Send one request, with the prompt file `prompt` filled in with `values`, or with `text`.

        `name` is that of the request in the provenance. `media` is None for a request without any.
        `sampling` overrides parameters of the run.
        """
        if prompt in VOCABULARY_PROMPTS:
            own_words = self.own_words and bool(self.vocabulary)
            more = {"vocabulary": list(self.vocabulary), "own_words": own_words}
            values = {**(values or {}), **more}
            reply = with_vocabulary(reply, self.vocabulary, own_words)
        answer = await self.vlm.ask(
            name=name,
            prompt=prompt,
            reply=reply,
            system=self.system,
            media=media or [],
            text=self.prompts.render(prompt, **(values or {})) if text is None else text,
            needs_media=media is not None,
            sampling=sampling,
        )
        use_own_words(answer.value)
        self._shorten_labels(name, answer.value)
        return answer

    def _shorten_labels(self, name: str, value: BaseModel | None) -> None:
        """Cut the labels that are still too long after a correction, with a warning for each."""
        for part in labeled_items(value):
            if isinstance(part, LabelCandidates):
                continue  # the chosen one is shortened
            label = shorten_label(part.label)
            if label != part.label:
                self.warn(
                    f"{name}: the label {part.label!r} has more than {MAX_LABEL_WORDS} words; it "
                    f"was shortened to {label!r}"
                )
                part.label = label

    async def ask_or_warn(
        self,
        name: str,
        prompt: str,
        reply: type[Reply],
        media: Sequence[Media] | None,
        values: Mapping[str, object],
        *,
        warning: str,
    ) -> Reply | None:
        """Return the reply. If it is unusable, add the warning `warning` and return None."""
        answer = await self.ask(name, prompt, reply, media, values)
        if answer.value is None:
            self.warn(warning)
        return answer.value

    def add_persistent(self, style: str, role: str, content: str, timestamp_s: float) -> None:
        self.persistent.append(row(style, role, content, timestamp_s))

    def add_speech(self, text: str, timestamp_s: float) -> None:
        """Add an event without style or content that calls the tool `say` with `text`."""
        speech = row(None, "assistant", None, timestamp_s)
        self.events.append({**speech, "tool_calls": say(text)})

    def result(self, **parts: Any) -> dict[str, Any]:
        """Return the content of the stage's JSON file."""
        if unstored := sum(call.get("stored") is False for call in self.vlm.calls):
            self.warn(
                f"{self.name}: {unstored} responses could not be cached (see the log of the run's "
                "gateway); a later run has to request them again"
            )
        return {
            "format": 1,
            "stage": self.name,
            "dataset": self.episode.dataset,
            "episode_index": self.episode.episode_index,
            **parts,
            "persistent": self.persistent,
            "events": self.events,
            "warnings": self.warnings,
            "provenance": {
                "model": self.vlm.model,
                "served_by": self.serve,
                "prompts": self.prompts.hashes,
                "sampling": dict(self.sampling),
                "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "calls": self.vlm.calls,
            },
        }


def row(
    style: str | None,
    role: str,
    content: str | None,
    timestamp_s: float,
    camera: str | None = None,
) -> dict[str, Any]:
    """Return a language row without tool calls."""
    return {
        "role": role,
        "content": content,
        "style": style,
        "timestamp": timestamp_s,
        "camera": camera,
        "tool_calls": None,
    }


@asynccontextmanager
async def connect(
    name: StageName,
    file: Path | str,
    group: str,
    prompts: Prompts,
    model_settings: Mapping[str, Any],
) -> AsyncIterator[Vlm]:
    """Connect a job that reads `file` to the gateway of the run, whose address is in server.json.

    `group`: see `Vlm.connect`. Raises SurroundingsError if the job is not part of a run.
    """
    server_file = find(SERVER_FILE_VARIABLE, file)
    if not server_file:
        raise SurroundingsError(explain_missing_server(file))
    settings = {"model": model_settings["model"], **model_settings["sampling"]}
    async with Vlm.connect(server_file, settings, group, prompts.hashes, stage=name) as vlm:
        yield vlm


@asynccontextmanager
async def open_stage(
    name: StageName,
    *,
    keyframes: Path | str,
    prompts: Sequence[str],
    model_settings: Mapping[str, Any],
) -> AsyncIterator[Stage]:
    """Return a stage that is connected to the gateway of the run.

    `model_settings` is `Run.model_settings`: the keys serve, model, sampling and images. Media are
    sent as file URLs if the run has set CUESHEET_SHARED_FOLDER.
    """
    episode, texts = read_episode(keyframes), Prompts(prompts)
    # The transport of media does not change a response; as a param, it would trigger reruns.
    shared = find(SHARED_FOLDER_VARIABLE, keyframes)
    async with connect(name, keyframes, episode.name, texts, model_settings) as vlm:
        yield Stage(
            name=name,
            episode=episode,
            prompts=texts,
            vlm=vlm,
            images=ImagesConfig(**model_settings["images"]),
            sampling=model_settings["sampling"],
            serve=model_settings["serve"],
            shared_folder=Path(shared) if shared else None,
        )


def warm_up_stage(prompts: Sequence[str]) -> None:
    """Prepare what all jobs of a stage share: Pillow's image formats, the default prompts.

    The job server calls this once, before it forks. Each job compiles the user's own prompts.
    """
    contact_sheet.load_formats()
    folder = bundled_files() / "config" / "prompts"
    Prompts(folder / f"{name}.md" for name in prompts)


def run_stage(
    name: StageName,
    job: Any,
    annotate: Callable[[Stage], Awaitable[dict[str, Any]]],
    counts: str,
) -> None:
    """Run a stage in a job of Snakemake, and write its log and its JSON file.

    `job` is the `snakemake` object of the script, with the inputs `keyframes` and `prompts`, the
    param `model_settings`, the output `json` and a log. `annotate` fills the stage and returns the
    other parts of its file; the items of the part `counts` are counted in the log.
    """

    async def run() -> dict[str, Any]:
        async with open_stage(
            name,
            keyframes=job.input.keyframes,
            prompts=list(job.input.prompts),
            model_settings=job.params.model_settings,
        ) as stage:
            return stage.result(**await annotate(stage))

    with job_log.to_file(job.log[0]):
        result = asyncio.run(run())
        files.write_json(job.output.json, result)
        calls = counted(len(result["provenance"]["calls"]), "call")
        print(f"{counted(len(result[counts]), counts.removesuffix('s'))}, {calls}")
