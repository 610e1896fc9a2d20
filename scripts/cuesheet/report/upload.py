"""Upload an annotated dataset to the Hugging Face Hub.

Creates a private repository with one commit: the files of the dataset, and a card that states the
model, the prompts and the number of annotations. A tag names the version of the
dataset format, because LeRobot looks up datasets by this tag.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.artifacts.layout import Layout
from cuesheet.config.hub_address import HubDataset, is_repo_id, parse_hub_address
from cuesheet.dataset import hub
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.dataset.source_files import is_format_file
from cuesheet.errors import CuesheetError
from cuesheet.files import read_json
from cuesheet.report.card import make_card
from cuesheet.text import counted

# Files per folder that `push` lists on the terminal.
SHOWN_FILES = 20


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    url = push(
        Path(given.results),
        given.repo_id,
        private=not given.public,
        overwrite=given.overwrite,
        tag=given.tag,
        extra_files=given.extra_files,
    )
    print(url)


def push(
    results: Path,
    repo_id: str,
    *,
    private: bool = True,
    overwrite: bool = False,
    tag: str | None,
    extra_files: bool = False,
) -> str:
    """Upload `results/annotated`, and return the address of the commit.

    Args:
        results: result folder of a dataset.
        repo_id: user/name of the repository.
        private: whether a new repository is private; an existing one is not changed.
        overwrite: also write into an existing repository, even that of the source.
        tag: tag in addition to the version of the format.
        extra_files: also upload files that the LeRobot format does not define.

    Raises:
        CuesheetError: `repo_id` is not one, the dataset is incomplete, the repository already
            exists, or the hub rejected a request.
    """
    source = hub.source_of(results)
    _check_target(repo_id, source, overwrite)
    annotated = Layout(results).annotated
    dataset, summary = _read(results)
    from huggingface_hub import CommitOperationAdd, HfApi

    card = make_card(dataset, summary, results, source, repo_id)
    operations = [
        CommitOperationAdd(path.as_posix(), annotated / path)
        for path in _files_to_upload(annotated, extra_files)
    ]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    api = HfApi()
    annotated_episodes = summary["episodes"]["annotated"]
    with hub.plain_errors(HubDataset(repo_id, "main"), advice="Run the same command again."):
        if api.repo_exists(repo_id, repo_type="dataset"):
            if not overwrite:
                raise CuesheetError(
                    f"the hub already has a dataset {repo_id}; choose another name, or use "
                    "--overwrite to add a commit to it"
                )
            operations += _deletions(api.list_repo_files(repo_id, repo_type="dataset"), operations)
        else:
            api.create_repo(repo_id, repo_type="dataset", private=private)
        commit = api.create_commit(
            repo_id,
            operations,
            repo_type="dataset",
            commit_message=f"Annotate {counted(annotated_episodes, 'episode')} with Cuesheet",
        )
        for name in dict.fromkeys([dataset.version, tag or dataset.version]):
            _set_tag(api, repo_id, name, commit.oid, overwrite)
    return str(commit.commit_url)


def _check_target(repo_id: str, source: Mapping[str, Any] | None, overwrite: bool) -> None:
    """Raise CuesheetError if `repo_id` is not one, or is the source and may not be overwritten."""
    if not is_repo_id(repo_id):
        raise CuesheetError(f"{repo_id!r} does not name a repository; expected user/name")
    origin = parse_hub_address(source["dataset"]) if source else None
    if origin and origin.repo_id == repo_id and not overwrite:
        raise CuesheetError(
            f"{repo_id} is the source of this dataset; give the copy another name, or use "
            "--overwrite to write the annotations into the source"
        )


def _read(results: Path) -> tuple[Dataset, Mapping[str, Any]]:
    """Return the finished dataset and its summary. Raises CuesheetError if one is incomplete."""
    layout = Layout(results)
    summary = read_json(layout.summary)
    if not summary:
        raise CuesheetError(
            f"{layout.summary} does not exist or is damaged, so the run of this dataset is not "
            "finished; finish it first"
        )
    dataset = read_dataset(layout.annotated, layout.dataset)
    files = dataset.files_of((e.episode_index for e in dataset.episodes), include_excluded=True)
    missing = [file for file in files if not dataset.has_file(file)]
    if missing:
        raise CuesheetError(
            f"{layout.annotated} is part of a dataset: {counted(len(missing), 'file')} "
            f"that its metadata names cannot be found, such as {missing[0]}; annotate "
            "all episodes, then push it"
        )
    return dataset, summary


def _files_to_upload(annotated: Path, extra_files: bool) -> list[Path]:
    """Return the files to upload, relative to `annotated`, and list them on the terminal.

    Raises:
        CuesheetError: there are files that the LeRobot format does not define, and `extra_files`
            does not allow them.
    """
    paths = [
        path.relative_to(annotated)
        for path in sorted(annotated.rglob("*"))
        if path.is_file() and not path.name.startswith(".snakemake")
    ]
    others = [path.as_posix() for path in paths if not is_format_file(path)]
    if others and not extra_files:
        raise CuesheetError(
            f"{annotated} has {counted(len(others), 'file')} outside the LeRobot format: "
            f"{', '.join(others[:SHOWN_FILES])}{', ...' if len(others) > SHOWN_FILES else ''}. "
            "Check them, then use --extra-files to upload them too, or remove them"
        )
    by_folder: dict[str, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parts[0] if len(path.parts) > 1 else ".", []).append(path)
    for folder, listed in by_folder.items():
        size_mb = sum((annotated / path).stat().st_size for path in listed) / 1e6
        print(f"{folder}: {counted(len(listed), 'file')}, {size_mb:.1f} MB", file=sys.stderr)
        for path in listed[:SHOWN_FILES]:
            print(f"  {path.as_posix()}", file=sys.stderr)
        if len(listed) > SHOWN_FILES:
            print(f"  and {len(listed) - SHOWN_FILES} more", file=sys.stderr)
    return [path for path in paths if path != Path("README.md")]  # the card replaces it


def _deletions(existing: Sequence[str], additions: Sequence[Any]) -> list[Any]:
    """Return deletions of data, videos and metadata that only an earlier version has."""
    from huggingface_hub import CommitOperationDelete

    added = {operation.path_in_repo for operation in additions}
    folders = ("data/", "videos/", "meta/")
    return [
        CommitOperationDelete(file)
        for file in existing
        if file not in added and file.startswith(folders)
    ]


def _set_tag(api: Any, repo_id: str, name: str, revision: str, overwrite: bool) -> None:
    """Create a tag of a revision; with `overwrite`, an existing tag of this name is moved."""
    if overwrite:
        refs = api.list_repo_refs(repo_id, repo_type="dataset")
        if name in {tag.name for tag in refs.tags}:
            api.delete_tag(repo_id, tag=name, repo_type="dataset")
    api.create_tag(repo_id, tag=name, revision=revision, repo_type="dataset")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cuesheet push", description=__doc__)
    parser.add_argument("results", help="result folder of a dataset: results/DATASET")
    parser.add_argument("repo_id", help="repository to create: user/name")
    parser.add_argument(
        "--public", action="store_true", help="create a public repository (default: private)"
    )
    parser.add_argument("--tag", help="additional tag, such as v1")
    parser.add_argument(
        "--overwrite", action="store_true", help="add a commit to a repository that already exists"
    )
    parser.add_argument(
        "--extra-files",
        action="store_true",
        help="also upload files that the LeRobot format does not define",
    )
    return parser
