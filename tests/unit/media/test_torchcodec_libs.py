"""torchcodec finds the FFmpeg libraries inside PyAV's package under the names that it expects."""

import importlib.util
from types import SimpleNamespace

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.media import torchcodec_libs


@pytest.fixture
def pyav(tmp_path, monkeypatch):
    """Make a package with two libraries in place of PyAV; return the folder of the libraries."""
    libraries = tmp_path / "site" / "av.libs"
    libraries.mkdir(parents=True)
    for name in ("libavcodec-1a2b3c.so.62.11.100", "libswscale-ff00.so.9.1.0", "libdav1d.so.7"):
        (libraries / name).write_text(name)
    origin = str(tmp_path / "site" / "av" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin))
    return libraries


def test_every_library_is_linked_by_its_own_name_and_by_its_usual_one(pyav, tmp_path):
    folder = torchcodec_libs.link_libraries(tmp_path / "links")
    assert (folder / "libavcodec.so.62").read_text() == "libavcodec-1a2b3c.so.62.11.100"
    assert (folder / "libswscale.so.9").read_text() == "libswscale-ff00.so.9.1.0"
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        [*(path.name for path in pyav.iterdir()), "libavcodec.so.62", "libswscale.so.9"]
    )


def test_links_of_an_earlier_version_are_replaced(pyav, tmp_path):
    torchcodec_libs.link_libraries(tmp_path / "links")
    (pyav / "libavcodec-1a2b3c.so.62.11.100").rename(pyav / "libavcodec-99.so.62.20.100")
    folder = torchcodec_libs.link_libraries(tmp_path / "links")
    assert (folder / "libavcodec.so.62").resolve().name == "libavcodec-99.so.62.20.100"


def test_the_command_keeps_the_path_that_is_set(pyav, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torchcodec_libs.sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    torchcodec_libs.main()
    line = capsys.readouterr().out.strip()
    assert line == f"export LD_LIBRARY_PATH={tmp_path}/environment/lib/ffmpeg-of-pyav:/opt/lib"


def test_without_libraries_in_the_package_the_error_says_what_holds_instead(pyav, tmp_path):
    for path in pyav.iterdir():
        path.unlink()
    pyav.rmdir()
    with pytest.raises(CuesheetError, match="uses the system's FFmpeg"):
        torchcodec_libs.link_libraries(tmp_path / "links")


def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CuesheetError, match="pip install av"):
        torchcodec_libs.link_libraries(tmp_path / "links")
