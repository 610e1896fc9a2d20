"""Saving from the review page: nothing is lost, and nobody else may write."""

import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pyarrow as pa
import pytest
import pytest_asyncio
from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestServer
from stage_setup import write_keyframes
from yarl import URL

from cuesheet.artifacts.index import SCHEMA
from cuesheet.artifacts.layout import Layout
from cuesheet.dataset.index import write_index
from cuesheet.errors import CuesheetError
from cuesheet.report.correction_files import NO_FILE, ConflictError, CorrectionFolder, effect
from cuesheet.report.review_server import ReviewServer

TOKEN = "a-token"


def correction(index: int = 3, **changes) -> dict:
    return {"format": 1, "dataset": "kitchen", "episode_index": index, "verdict": "good", **changes}


@pytest.fixture
def folder(tmp_path: Path) -> CorrectionFolder:
    return CorrectionFolder(tmp_path / "corrections", "kitchen", tmp_path / "backups")


def test_corrections_are_read_as_they_were_written(folder):
    assert folder.read(3).content is None
    saved = folder.write(3, correction(), NO_FILE)
    assert folder.read(3) == saved
    assert json.loads((folder.folder / "000003.json").read_text()) == correction()


def test_a_version_that_the_writer_has_not_seen_is_not_replaced(folder):
    first = folder.write(3, correction(), NO_FILE)
    folder.write(3, correction(note="of another person"), first.version)
    with pytest.raises(ConflictError) as conflict:
        folder.write(3, correction(note="mine"), first.version)
    assert conflict.value.saved.content["note"] == "of another person"
    assert folder.read(3).content["note"] == "of another person"


def test_the_same_content_is_not_a_conflict(folder):
    folder.write(3, correction(), NO_FILE)
    assert folder.write(3, correction(), NO_FILE).content == correction()


def test_what_is_replaced_on_purpose_is_backed_up(folder):
    folder.write(3, correction(note="of another person"), NO_FILE)
    folder.write(3, correction(note="mine"), "*")
    assert folder.read(3).content["note"] == "mine"
    (backup,) = folder.backups.iterdir()
    assert json.loads(backup.read_text())["note"] == "of another person"


def test_a_table_becomes_json_with_the_first_change_and_is_backed_up(folder):
    folder.folder.mkdir()
    table = "start,end,text\n0.0,2.5,reach\n2.5,,place it\n"
    (folder.folder / "000003.csv").write_text(table)
    saved = folder.read(3)
    assert saved.content["subtasks"] == [
        {"start_s": 0.0, "end_s": 2.5, "label": "reach"},
        {"start_s": 2.5, "label": "place it"},
    ]
    folder.write(3, correction(), saved.version)
    assert [path.name for path in folder.folder.iterdir()] == ["000003.json"]
    (backup,) = folder.backups.iterdir()
    assert backup.read_text() == table


def test_no_corrections_are_no_file(folder):
    saved = folder.write(3, correction(), NO_FILE)
    assert folder.write(3, None, saved.version).version == NO_FILE
    assert list(folder.folder.iterdir()) == []


def test_a_file_of_another_episode_is_refused(folder):
    with pytest.raises(CuesheetError, match="for episode 4 of 'kitchen'"):
        folder.write(3, correction(4), NO_FILE)
    with pytest.raises(CuesheetError, match="for episode 3 of 'other'"):
        folder.write(3, correction(dataset="other"), NO_FILE)


@pytest_asyncio.fixture
async def server(tmp_path: Path, folder: CorrectionFolder) -> AsyncIterator[TestServer]:
    results = tmp_path / "kitchen"
    (results / "review").mkdir(parents=True)
    (results / "review" / "index.html").write_text("<p>the page")
    (results / "clips").mkdir()
    (results / "clips" / "a.mp4").write_bytes(bytes(range(100)))
    (results / "summary.json").write_text("{}")
    async with TestServer(ReviewServer(results, folder, TOKEN).application()) as running:
        yield running


@pytest_asyncio.fixture
async def browser(server) -> AsyncIterator[ClientSession]:
    """A browser that opened the printed address."""
    async with ClientSession(server.make_url("/"), cookie_jar=CookieJar(unsafe=True)) as session:
        async with session.get("/", params={"token": TOKEN}) as reply:
            assert await reply.text() == "<p>the page"
        yield session


@pytest.fixture
def put(server) -> Callable:
    """Write as the page does; `headers` change what it sends, None leaves one out."""

    def send(session: ClientSession, content: object = None, **headers: str | None):
        usual = {
            "Origin": str(server.make_url("/")).rstrip("/"),
            "X-Cuesheet": "review",
            "If-Match": NO_FILE,
        }
        sent = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return session.put(
            "/api/corrections/000003",
            json=correction() if content is None else content,
            headers={name: value for name, value in sent.items() if value is not None},
        )

    return send


async def test_the_page_saves_and_hears_of_conflicts(browser, put, folder):
    async with put(browser) as reply:
        version = (await reply.json())["etag"]
    assert folder.read(3).content == correction()
    async with put(browser, correction(note="x")) as reply:
        assert reply.status == 409
        assert (await reply.json()) == {**{"etag": version, "file": correction(), "effect": None}}
    async with put(browser, correction(note="x"), If_Match=version) as reply:
        assert reply.status == 200
    async with browser.get("/api/corrections/000003") as reply:
        assert (await reply.json())["file"]["note"] == "x"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": None}, {"X-Cuesheet": None}],
)
async def test_other_sites_cannot_write(browser, put, folder, headers):
    async with put(browser, **headers) as reply:
        assert reply.status == 403
    assert folder.read(3).content is None


async def test_nobody_gets_in_without_the_token(server, put, folder):
    async with ClientSession(server.make_url("/"), cookie_jar=CookieJar(unsafe=True)) as stranger:
        for path in ("/", "/?token=wrong", "/review/index.html", "/api/corrections/000003"):
            async with stranger.get(path) as reply:
                assert reply.status == 403, path
        async with put(stranger) as reply:
            assert reply.status == 403
    assert folder.read(3).content is None


async def test_another_name_for_this_machine_is_refused(browser):
    async with browser.get("/review/index.html", headers={"Host": "evil.example:80"}) as reply:
        assert reply.status == 403


async def test_clips_are_served_in_parts_and_other_files_are_not(browser):
    async with browser.get("/clips/a.mp4", headers={"Range": "bytes=10-13"}) as reply:
        assert (reply.status, await reply.read()) == (206, bytes([10, 11, 12, 13]))
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for path in ("/summary.json", "/clips/../summary.json", "/clips/%2e%2e/summary.json"):
        async with browser.get(path) as reply:
            assert reply.status == 404, path


FRONT = "observation.images.front"


def box(*corners: float, frame_index: int = 0) -> dict:
    detections = [{"label": "cup", "bbox_format": "xyxy", "bbox": list(corners)}]
    return {
        **{"frame_index": frame_index, "camera": FRONT, "type": "bbox", "question": "Where?"},
        "answer": {"detections": detections},
    }


def spans(*edges: float) -> list[dict]:
    pairs = itertools.pairwise(edges)
    return [{"start_s": start, "end_s": end, "label": "wipe"} for start, end in pairs]


def write_results(folder: Path) -> Path:
    """Index and keyframes of a dataset whose only episode is number 3 (2 s at 10 fps)."""
    camera = {"camera": FRONT, "kind": "video", "file": "a.mp4", "from_s": 0.0, "to_s": 2.0}
    episode = {
        **{"episode_index": 3, "task": "wipe", "tasks": ["wipe"], "length": 20, "fps": 10.0},
        **{"data_file": "a.parquet", "row_from": 0, "row_to": 20, "fingerprint": "x"},
        "timestamps": [i / 10 for i in range(20)],
        "cameras": [{**camera, "width": 64, "height": 48, "codec": "av1"}],
    }
    write_index(pa.Table.from_pylist([episode], schema=SCHEMA), folder / "episodes.parquet")
    write_keyframes(folder / "keyframes" / "000003", seconds=2)
    return folder


def test_a_correction_of_an_episode_that_does_not_exist_is_rejected(folder, tmp_path):
    folder.results = write_results(tmp_path)
    with pytest.raises(CuesheetError, match="no episode 4"):
        folder.write(4, correction(4), NO_FILE)
    assert not folder.folder.exists()


@pytest.mark.parametrize("header", ["start;end;text", "start, end, text", "start,end,text"])
def test_every_csv_style_that_a_run_accepts_can_be_read_by_the_page(folder, header):
    delimiter = header.removeprefix("start").partition("end")[0]
    lines = [header, delimiter.join(("0", "2.5", "reach")), delimiter.join(("2.5", "", "place it"))]
    folder.folder.mkdir()
    (folder.folder / "000003.csv").write_text("\n".join(lines) + "\n")
    assert folder.read(3).content["subtasks"] == [
        {"start_s": 0.0, "end_s": 2.5, "label": "reach"},
        {"start_s": 2.5, "label": "place it"},
    ]


def talk(time_s: float) -> dict:
    return {"time_s": time_s, "interjection": "Slower, please.", "speech": "Slowing down."}


def test_the_effect_of_a_correction_is_that_of_the_keys_that_change_the_dataset():
    notes = correction(verdict="good", note="looks right", done=True, reviewer="Ana")
    assert effect(None) is None
    assert effect(notes) is None
    bad, moved = correction(verdict="bad"), correction(subtasks=spans(0, 0.5, 2))
    changed = [bad, moved, correction(rephrasings=[]), correction(interjections=[])]
    assert len({effect(content) for content in changed}) == len(changed)
    assert effect({**moved, "reviewer": "Ben", "done": True}) == effect(moved)


async def test_the_page_gets_the_marks_of_all_corrected_episodes_and_the_command(
    browser, server, folder, tmp_path
):
    folder.write(3, correction(verdict="good", done=True, reviewer="Ana"), NO_FILE)
    moved = correction(7, subtasks=spans(0, 0.5, 2))
    folder.write(7, moved, NO_FILE)
    (folder.folder / "000009.json").write_text("{")  # reported when that episode is opened
    async with browser.get(server.make_url("/api/corrections")) as reply:
        assert await reply.json() == [
            {
                **{"episode_index": 3, "verdict": "good", "done": True},
                **{"corrected": False, "effect": None},
            },
            {
                **{"episode_index": 7, "verdict": "good", "done": False},
                **{"corrected": True, "effect": effect(moved)},
            },
        ]
    async with browser.get(server.make_url("/api/session")) as reply:
        assert (await reply.json())["command"] == "snakemake --cores all"
    command = "snakemake --cores 4 --config 'dataset=my data'"
    Layout(tmp_path / "kitchen").command.parent.mkdir()
    Layout(tmp_path / "kitchen").command.write_text(command + "\n")
    async with browser.get(server.make_url("/api/session")) as reply:
        assert (await reply.json())["command"] == command


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subtasks": [{"start_s": 0, "label": "\u0001"}]}, "subtasks.0.label"),
        ({"subtasks": spans(0, 2, 4)}, "ends at 4 s; the episode ends at 2 s"),
        ({"subtasks": spans(0, 0.46, 0.54, 2)}, "begin on frame"),
        ({"vqa": [box(5, 5, 5, 9)]}, "vqa.0"),
        ({"vqa": [box(5, 5, 65, 9)]}, "vqa.0.*65"),  # the frame is 64 pixels wide
        ({"vqa": [box(5, 5, 9, 9, frame_index=1)]}, "not among the decoded keyframes"),
        ({"vqa": [box(5, 5, 9, 9, frame_index=20)]}, "frame 20 does not exist"),
        ({"vqa": [{**box(5, 5, 9, 9), "camera": "rear"}]}, "camera 'rear' does not exist"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"interjections": [talk(0.5), talk(0.54)]}, "frame 5, which already has an interjection"),
        ({"interjections": [talk(2.5)]}, "interjections.0 is at 2.5 s, but the episode ends at 2"),
        ({"interjections": [{**talk(1.0), "interjection": None}]}, "has no interjection"),
        ({"rephrasings": ["wipe it", ""]}, "rephrasings.1"),
        ({"length": 21}, "made for 21 frames; the episode now has 20"),
    ],
)
def test_what_the_next_run_would_refuse_is_not_saved(folder, tmp_path, changes, problem):
    folder.results = write_results(tmp_path)
    with pytest.raises(CuesheetError, match=problem):
        folder.write(3, correction(**changes), NO_FILE)
    assert folder.read(3).content is None
    good = correction(length=20, subtasks=spans(0, 0.5, 2), vqa=[box(5, 5, 64, 48)])
    assert folder.write(3, good, NO_FILE).content == good


@pytest.mark.parametrize("content", [[], correction(4), correction(subtasks=[]), "text"])
async def test_content_that_is_not_a_correction_of_the_episode_is_rejected(
    browser, put, folder, content
):
    async with put(browser, content) as reply:
        assert reply.status in (400, 422)
    assert folder.read(3).content is None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"note": ' + b'{"a": ' * 200_000,
        b'{"format": 1, "dataset": "kitchen", "episode_index": 3, "note": "\\ud800"}',
        b'{"note": NaN}',
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_a_malformed_body_is_a_client_error_and_saves_nothing(server, browser, folder, body):
    origin = str(server.make_url("/")).rstrip("/")
    headers = {"Origin": origin, "X-Cuesheet": "review"}
    headers["If-Match"] = NO_FILE
    async with browser.put("/api/corrections/000003", data=body, headers=headers) as reply:
        assert reply.status == 400
        assert "Traceback" not in await reply.text()
    assert folder.read(3).content is None


async def test_a_cookie_or_token_that_is_not_ascii_is_forbidden(server):
    name = f"cuesheet-review-{server.port}"
    async with ClientSession(server.make_url("/")) as stranger:
        for value in ("p\u00e4ss", "\u2603"):
            headers = {"Cookie": f"{name}={value}"}
            async with stranger.get("/review/index.html", headers=headers) as reply:
                assert reply.status == 403
            async with stranger.get("/", params={"token": value}) as reply:
                assert reply.status == 403


@pytest.mark.parametrize("path", ["/clips/%00", "/review/a%00b.js", "/clips/" + "x" * 5000])
async def test_a_path_that_cannot_exist_is_not_found(browser, path):
    async with browser.get(URL(path, encoded=True)) as reply:
        assert reply.status == 404
