"""Keyframes on a node's own disk: links while the shard's job runs, no images afterwards."""

import json

import pytest

from cuesheet.artifacts.layout import Layout
from cuesheet.errors import SurroundingsError
from cuesheet.media import scratch


@pytest.fixture
def linked(tmp_path):
    """One image on the local disk, linked into the results."""
    local = tmp_path / "disk" / "demo" / "000002"
    (local / "front").mkdir(parents=True)
    (local / "front" / "000000.png").write_bytes(b"image")
    (local / "keyframes.json").write_text(json.dumps({"cameras": {"front": [0]}}))
    results = tmp_path / "results" / "demo"
    folder = Layout(results).keyframes(2)
    folder.mkdir(parents=True)
    (folder / "of an earlier run").touch()
    scratch.link_images(local, folder)
    return results


def test_the_folder_of_the_setting_may_use_variables_and_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("DISK", str(tmp_path))
    assert scratch.resolve("$DISK") == tmp_path
    with pytest.raises(SurroundingsError, match=r"\$DISK/none is .*/none on this node"):
        scratch.resolve("$DISK/none")


def test_episodes_have_a_local_folder_only_in_the_job_of_a_shard(tmp_path, monkeypatch):
    monkeypatch.delenv(scratch.SCRATCH_VARIABLE, raising=False)
    assert scratch.local_folder("results/demo/keyframes/000002", "demo") is None
    monkeypatch.setenv(scratch.SCRATCH_VARIABLE, str(tmp_path))
    local = scratch.local_folder("results/demo/keyframes/000002", "demo")
    assert local == tmp_path / "demo" / "000002"


def test_links_replace_the_folder_and_lead_to_the_images(linked):
    folder = Layout(linked).keyframes(2)
    assert sorted(path.name for path in folder.iterdir()) == ["front", "keyframes.json"]
    assert (folder / "front" / "000000.png").read_bytes() == b"image"
    assert (folder / "front").is_symlink()
    assert not (folder / "keyframes.json").is_symlink()


def test_after_the_job_the_list_stays_and_the_images_are_decoded_again(linked):
    scratch.unlink_images(linked, [2, 3])
    folder = Layout(linked).keyframes(2)
    assert [path.name for path in folder.iterdir()] == ["keyframes.json"]
    scratch.remove_without_images(linked, [2, 3])
    assert not folder.exists()


def test_keyframes_with_their_own_images_are_kept(tmp_path):
    folder = Layout(tmp_path).keyframes(0)
    (folder / "front").mkdir(parents=True)
    (folder / "keyframes.json").write_text(json.dumps({"cameras": {"front": [0]}}))
    scratch.remove_without_images(tmp_path, [0])
    assert (folder / "front").is_dir()
