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
from cuesheet.config.hub_address import HubDataset, parse_hub_address
from cuesheet.dataset import hub
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.dataset.source_files import is_format_file
from cuesheet.errors import CuesheetError
from cuesheet.files import read_json
from cuesheet.report.card import make_card

# Files per folder that `push` lists on the terminal.
SHOWN_FILES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; 1 for a user error, reported in one line."""
    given = _parser().parse_args(arguments)
    try:
        url = push(
            Path(given.results),
            given.repo_id,
            private=not given.public,
            overwrite=given.overwrite,
            tag=given.tag,
            extra_files=given.extra_files,
        )
    except CuesheetError as error:
        print(f"Cuesheet: {error}", file=sys.stderr)
        return 1
    print(url)
    return 0


def push(
    results: Path,
    repo_id: str,
    *,
    private: bool = True,
    overwrite: bool = False,
    tag: str | None,
    extra_files: bool = False,
) -> str:
    """Upload `results/annotated`; returns the address of the commit.

    Args:
        results: the results folder of a dataset.
        repo_id: user/name of the repository.
        private: of a new repository; one that is there stays as it is.
        overwrite: write into a repository that is there, even the source's.
        tag: a further tag than that of the format's version.
        extra_files: also upload files that the LeRobot format does not define.

    Raises:
        CuesheetError: the dataset is not whole, the repository is there, or the hub refuses.
    """
    annotated = Layout(results).annotated
    dataset, summary = _read(results)
    place = HubDataset(repo_id, "main")
    source = hub.source_of(results)
    came_from = parse_hub_address(source["dataset"]) if source else None
    if came_from and came_from.repo_id == repo_id and not overwrite:
        raise CuesheetError(
            f"{repo_id} is the source of this dataset; give the copy another name, or say "
            "--overwrite to write the annotations into the source"
        )
    from huggingface_hub import CommitOperationAdd, HfApi

    card = make_card(dataset, summary, results, source, repo_id)
    operations = [
        CommitOperationAdd(path.as_posix(), annotated / path)
        for path in _files_to_upload(annotated, extra_files)
    ]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    api = HfApi()
    with hub.plain_errors(place):
        if api.repo_exists(repo_id, repo_type="dataset"):
            if not overwrite:
                raise CuesheetError(
                    f"the hub has a dataset {repo_id} already; choose another name, or say "
                    "--overwrite to add a commit to it"
                )
            operations += _deletions(api.list_repo_files(repo_id, repo_type="dataset"), operations)
        else:
            api.create_repo(repo_id, repo_type="dataset", private=private)
        done = api.create_commit(
            repo_id,
            operations,
            repo_type="dataset",
            commit_message=f"Annotate {summary['episodes']['annotated']} episodes with Cuesheet",
        )
        for name in dict.fromkeys([dataset.version, *([tag] if tag else [])]):
            if overwrite:
                _drop_tag(api, repo_id, name)
            api.create_tag(repo_id, tag=name, revision=done.oid, repo_type="dataset")
    return str(done.commit_url)


def _read(results: Path) -> tuple[Dataset, Mapping[str, Any]]:
    """The finished dataset and its summary. Raises CuesheetError where either is not whole."""
    layout = Layout(results)
    path = layout.summary
    summary = read_json(path)
    if summary is None:
        raise CuesheetError(
            f"{path} does not exist or is damaged: the run of this dataset is not finished; finish "
            "it first"
        )
    dataset = read_dataset(layout.annotated, layout.dataset)
    files = dataset.files_of((e.episode_index for e in dataset.episodes), include_excluded=True)
    absent = [file for file in files if not dataset.has_file(file)]
    if absent:
        raise CuesheetError(
            f"{layout.annotated} is part of a dataset: {len(absent)} files that its metadata "
            f"names are not here, such as {absent[0]}; annotate it with all episodes to push it"
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
            f"{annotated} has {len(others)} files that the LeRobot format does not define: "
            f"{', '.join(others[:SHOWN_FILES])}{', ...' if len(others) > SHOWN_FILES else ''}. "
            "Check them, then use --extra-files to upload them too, or remove them"
        )
    by_folder: dict[str, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parts[0] if len(path.parts) > 1 else ".", []).append(path)
    for folder, listed in by_folder.items():
        size_mb = sum((annotated / path).stat().st_size for path in listed) / 1e6
        print(f"{folder}: {len(listed)} files, {size_mb:.1f} MB", file=sys.stderr)
        for path in listed[:SHOWN_FILES]:
            print(f"  {path.as_posix()}", file=sys.stderr)
        if len(listed) > SHOWN_FILES:
            print(f"  and {len(listed) - SHOWN_FILES} more", file=sys.stderr)
    return [path for path in paths if path != Path("README.md")]  # the card replaces it


def _deletions(there: Sequence[str], additions: Sequence[Any]) -> list[Any]:
    """Return deletions of data, videos and metadata that only an earlier version has."""
    from huggingface_hub import CommitOperationDelete

    kept = {operation.path_in_repo for operation in additions}
    folders = ("data/", "videos/", "meta/")
    return [
        CommitOperationDelete(file)
        for file in there
        if file not in kept and file.startswith(folders)
    ]


def _drop_tag(api: Any, repo_id: str, name: str) -> None:
    if name in {tag.name for tag in api.list_repo_refs(repo_id, repo_type="dataset").tags}:
        api.delete_tag(repo_id, tag=name, repo_type="dataset")


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


if __name__ == "__main__":
    sys.exit(main())
