"""What `cuesheet push` uploads."""

from pathlib import Path

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.report.upload import _files_to_upload

FORMAT_FILES = (
    "README.md",
    "meta/info.json",
    "meta/tasks.parquet",
    "data/chunk-000/file-000.parquet",
    "videos/observation.images.front/chunk-000/file-000.mp4",
)


@pytest.fixture
def annotated(tmp_path) -> Path:
    for name in FORMAT_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    return tmp_path


def uploaded(annotated: Path, extra_files: bool = False) -> set[str]:
    return {path.as_posix() for path in _files_to_upload(annotated, extra_files)}


def test_files_of_the_format_are_uploaded_and_listed(annotated, capsys):
    assert uploaded(annotated) == set(FORMAT_FILES) - {"README.md"}  # the card replaces it
    listed = capsys.readouterr().err
    assert all(name in listed for name in FORMAT_FILES)


@pytest.mark.parametrize("name", ["meta/notes.txt", "secret.pem", "data/chunk-000/.env"])
def test_another_file_is_rejected_by_name_unless_the_flag_is_given(annotated, name):
    (annotated / name).write_text("secret")
    with pytest.raises(CuesheetError, match="1 file outside the LeRobot format") as caught:
        uploaded(annotated)
    assert name in str(caught.value)
    assert "--extra-files" in str(caught.value)
    assert name in uploaded(annotated, extra_files=True)
