"""Datasets on a hub (`hf://datasets/user/name@revision`), of which only needed files are fetched.

The revision is resolved to a commit once per run. The metadata is downloaded while the Snakefile is
parsed, then the data and video files of the selected episodes. All are stored in the cache of
huggingface_hub, which resumes interrupted downloads and downloads nothing twice. The run reads them
through one link, `.cuesheet/hub/{dataset}`, whose path is the same for every commit, so unchanged
files do not count as changed. Nothing is written below the link.
"""

import os
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuesheet.config.hub_address import HubDataset
from cuesheet.errors import CuesheetError
from cuesheet.files import read_json, write_json

FOLDER = Path(".cuesheet") / "hub"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RESUME = "Downloaded files are kept; run the same command again to continue."
_DOWNLOADS = 8  # at a time
_YES = {"1", "ON", "YES", "TRUE"}  # values of HF_HUB_OFFLINE


def open_dataset(place: HubDataset, name: str, *, online: bool) -> Path:
    """Return the folder of a dataset, with its metadata; `fetch` adds data and video files.

    `name` is the workflow's name of the dataset. Jobs are not `online`: they use the commit that
    their run resolved. Raises CuesheetError if there is no such dataset or revision, or if the hub
    cannot be reached and the dataset was not opened before.
    """
    state = _read_state(name)
    known = state if state and state["dataset"] == str(place) else None
    if known and Path(known["snapshot"]).is_dir():
        pinned = known["commit"] == place.revision
        if not online or pinned or os.environ.get("HF_HUB_OFFLINE", "0").upper() in _YES:
            return _linked(name, Path(known["snapshot"]))
    if not online:
        raise CuesheetError(
            f"{name}: {place} was not opened by the run of this job. Start the run again."
        )
    import huggingface_hub

    with plain_errors(place):
        revision = place.revision
        commit: str | None = revision
        if not _COMMIT.fullmatch(revision):
            commit = huggingface_hub.HfApi().dataset_info(place.repo_id, revision=revision).sha
        snapshot = huggingface_hub.snapshot_download(
            place.repo_id,
            repo_type="dataset",
            revision=commit,
            allow_patterns=["meta/*", "README.md", "LICENSE*"],
        )
    value = {"format": 1, "dataset": str(place), "commit": commit, "snapshot": str(snapshot)}
    write_json(FOLDER / f"{name}.json", value)
    return _linked(name, Path(snapshot))


def fetch(
    place: HubDataset, name: str, files: Collection[str], optional: Collection[str] = ()
) -> int:
    """Download the files that this machine lacks; return their number.

    Paths are relative to the dataset's root; the hub may lack `optional` files. Raises
    CuesheetError if a file cannot be downloaded.
    """
    state = _read_state(name)
    assert state is not None, "open_dataset comes first"
    wanted = sorted({*files, *optional})
    missing = [file for file in wanted if not (Path(state["snapshot"]) / file).exists()]
    if not missing:
        return 0
    import huggingface_hub
    from tqdm import tqdm

    def one(file: str) -> None:
        try:
            huggingface_hub.hf_hub_download(
                place.repo_id, file, repo_type="dataset", revision=state["commit"]
            )
        except huggingface_hub.errors.EntryNotFoundError:
            if file in files:
                raise

    with plain_errors(place), ThreadPoolExecutor(_DOWNLOADS) as pool:
        list(tqdm(pool.map(one, missing), total=len(missing), desc=name, unit="file"))
    return len(missing)


def source_of(results: Path, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return `dataset` and `commit` of a results folder's source; None if it is not on a hub."""
    return _read_state(results.resolve().name, folder)


def _read_state(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    state, keys = read_json(folder / f"{name}.json"), ("dataset", "commit", "snapshot")
    return {key: state[key] for key in keys} if all(key in state for key in keys) else None


def _linked(name: str, snapshot: Path) -> Path:
    """Return a link to the snapshot; its path is the same for every commit."""
    link = Path.cwd() / FOLDER / name
    if not (link.is_symlink() and os.readlink(link) == str(snapshot)):
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{name}.{os.getpid()}.link")
        temporary.unlink(missing_ok=True)
        os.symlink(snapshot, temporary)
        os.replace(temporary, link)
    return link


@contextmanager
def plain_errors(place: HubDataset, advice: str = _RESUME) -> Iterator[None]:
    """Convert errors of the hub's client to CuesheetError with one line.

    `advice` says what to do if the hub cannot be reached.
    """
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
    except errors.LocalEntryNotFoundError as error:  # a file was neither downloaded nor found here
        raise _unreachable(place, error.__cause__ or error, advice) from None
    except errors.EntryNotFoundError as error:
        raise CuesheetError(
            f"{place}: a file that the metadata names does not exist on the hub: {error}"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise _unreachable(place, error, advice) from None
    except Exception as error:
        if not _is_network_error(error):
            raise
        raise _unreachable(place, error, advice) from None


def _is_network_error(error: Exception) -> bool:
    """Tell whether an error is one of the HTTP library of the hub's client.

    That is httpx2 in version 2 of huggingface_hub, httpx in version 1 and requests before; it is no
    requirement of ours.
    """
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "RequestException"})


def _unreachable(place: HubDataset, error: BaseException, advice: str) -> CuesheetError:
    from huggingface_hub import constants

    said = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return CuesheetError(
        f"{place}: the hub {constants.ENDPOINT} cannot be reached: {said[0].rstrip('.')}. {advice}"
    )
