"""Datasets on a hub: `hf://datasets/user/name@revision`, of which only what is needed is fetched.

The revision is resolved to a commit once a run. Its metadata is fetched while the Snakefile is
parsed, and then the data and video files of the chosen episodes; both lie in the cache of
huggingface_hub, which goes on where a download was cut off and fetches nothing twice. The run reads
them through one link, `.cuesheet/hub/{dataset}`, that stays the same from commit to commit, so that
files which did not change are not looked at again. Nothing is written below it.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuesheet.config.hub_address import HubDataset
from cuesheet.errors import CuesheetError
from cuesheet.files import write_json

FOLDER = Path(".cuesheet") / "hub"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DOWNLOADS = 8  # at a time
_YES = {"1", "ON", "YES", "TRUE"}  # of HF_HUB_OFFLINE


def open_dataset(place: HubDataset, name: str, *, online: bool) -> Path:
    """The folder of a dataset's metadata; data and videos are there once they were `fetch`ed.

    Args:
        place: where it is on the hub.
        name: what the workflow calls it.
        online: whether the hub may be asked; the jobs of a run find what their run found.

    Raises:
        CuesheetError: there is no such dataset or revision, or the hub cannot be reached and the
            dataset was not opened before.
    """
    state = _read_state(name)
    known = state if state and state["dataset"] == str(place) else None
    if known and Path(known["snapshot"]).is_dir():
        pinned = known["commit"] == place.revision
        if not online or pinned or os.environ.get("HF_HUB_OFFLINE", "0").upper() in _YES:
            return _linked(name, Path(known["snapshot"]))
    if not online:
        raise CuesheetError(f"{name}: {place} was not opened by the run that this job belongs to")
    import huggingface_hub

    with plain_errors(place):
        commit = place.revision
        if not _COMMIT.fullmatch(commit):
            commit = huggingface_hub.HfApi().dataset_info(place.repo_id, revision=commit).sha
        snapshot = huggingface_hub.snapshot_download(
            place.repo_id,
            repo_type="dataset",
            revision=commit,
            allow_patterns=["meta/*", "README.md", "LICENSE*"],
        )
    value = {"format": 1, "dataset": str(place), "commit": commit, "snapshot": str(snapshot)}
    write_json(FOLDER / f"{name}.json", value)
    return _linked(name, Path(snapshot))


def fetch(place: HubDataset, name: str, files: Collection[str]) -> int:
    """Downloads the files that are not there yet; returns how many these were.

    Raises CuesheetError if one cannot be had.
    """
    state = _read_state(name)
    assert state is not None, "open_dataset comes first"
    missing = [file for file in sorted(files) if not (Path(state["snapshot"]) / file).exists()]
    if not missing:
        return 0
    import huggingface_hub
    from tqdm import tqdm

    def one(file: str) -> None:
        huggingface_hub.hf_hub_download(
            place.repo_id, file, repo_type="dataset", revision=state["commit"]
        )

    with plain_errors(place), ThreadPoolExecutor(_DOWNLOADS) as pool:
        list(tqdm(pool.map(one, missing), total=len(missing), desc=name, unit="file"))
    return len(missing)


def source_of(results: Path, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Where the source of a results folder came from: `dataset` and `commit`; None: no hub."""
    return _read_state(results.resolve().name, folder)


def _read_state(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return {key: state[key] for key in ("dataset", "commit", "snapshot")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _linked(name: str, snapshot: Path) -> Path:
    """A link to the snapshot that has the same name for every commit."""
    link = Path.cwd() / FOLDER / name
    if not (link.is_symlink() and os.readlink(link) == str(snapshot)):
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{name}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        os.symlink(snapshot, temporary)
        os.replace(temporary, link)
    return link


@contextmanager
def plain_errors(place: HubDataset) -> Iterator[None]:
    """What the hub's client raises, as one line for a person."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise CuesheetError(
            f"{place}: the dataset is gated; accept its terms on its page and log in (hf auth "
            "login, or the environment variable HF_TOKEN)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CuesheetError(
            f"{place}: the hub has no dataset {place.repo_id}, or none that you may read; check "
            "the name, and log in (hf auth login, or the environment variable HF_TOKEN)"
        ) from None
    except errors.RevisionNotFoundError:
        raise CuesheetError(
            f"{place}: the dataset has no branch, tag or commit {place.revision}"
        ) from None
    except errors.EntryNotFoundError as error:
        raise CuesheetError(
            f"{place}: a file that its metadata names is not there: {error}"
        ) from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CuesheetError(
            f"{place}: the hub cannot be reached: {said[0]}. What was downloaded is kept; run "
            "again to go on"
        ) from None
