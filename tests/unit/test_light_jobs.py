"""Jobs of one episode do not import the libraries that cost more CPU time than they work."""

import pytest
from processes import imported_after

from cuesheet.dataset.index import make_index
from cuesheet.dataset.metadata import read_dataset

HEAVY = {"pandas", "torch", "openai", "cv2", "aiohttp"}


SCRIPTS = (
    *("extract_clip", "decode_keyframes", "draft_vocabulary", "build_vocabulary", "annotate_plan"),
    *("annotate_interjections", "annotate_vqa", "inspect_episode", "validate_episode"),
)


def test_no_script_imports_any_of_them(repository):
    path = str(repository / "scripts")
    code = f"import sys; sys.path.insert(0, {path!r}); import {', '.join(SCRIPTS)}"
    assert not imported_after(code) & HEAVY


def test_decoding_an_episodes_keyframes_imports_none_of_them(repository, demo_v3, tmp_path):
    pytest.importorskip("pandas")  # pyarrow imports it, if installed, for some functions
    index = tmp_path / "episodes.parquet"
    make_index(index, read_dataset(demo_v3, "demo"), [0, 1, 2, 3])
    code = f"""
import sys; sys.path.insert(0, {str(repository / "scripts")!r})
from cuesheet.artifacts.index import read_indexed_episode
from cuesheet.artifacts.sampling import KeyframeSelection
from cuesheet.media.keyframes import write_keyframes
row = read_indexed_episode({str(index)!r}, 2)
write_keyframes({str(tmp_path / "keyframes")!r}, row, dataset="demo", root={str(demo_v3)!r},
                cameras=[row.cameras[0].camera], selection=KeyframeSelection([0, 5, 9]),
                decoder="pyav")
"""
    assert not imported_after(code) & HEAVY
    assert len(list((tmp_path / "keyframes").rglob("*.png"))) == 3


def test_reading_the_metadata_of_a_dataset_imports_none_of_them(demo_v3):
    pytest.importorskip("pandas")
    code = f"""
from pathlib import Path
from cuesheet.dataset.metadata import read_dataset
assert len(read_dataset(Path({str(demo_v3)!r}), "demo").episodes) == 4
"""
    assert not imported_after(code) & HEAVY
