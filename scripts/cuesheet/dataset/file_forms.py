"""Says what a file is that cannot be read as part of a dataset: a pointer, a web page, nothing."""

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_START_BYTES = 64


def found_instead(path: Path) -> str:
    """Return what an unreadable file is and what to do, as part of a message; "" if unknown."""
    try:
        if path.is_symlink() and not path.exists():
            return (
                "it is a link whose target is missing (get the file with the tool that made the "
                "link, such as git annex or hf download)"
            )
        if path.is_dir():
            return "it is a folder"
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return ""
    if not start:
        return "the file is empty (was a download or a recording interrupted?)"
    if start.startswith(_LFS):
        return "it is a Git LFS pointer in place of the file (run git lfs pull in the dataset)"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not the file (download it again)"
    return ""
