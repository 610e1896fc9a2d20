"""Uploads an annotated dataset to a hub, with a card that says how the annotations were made.

`cuesheet push results/NAME user/name`: a new private repository, one commit of
the files and the card, and a tag for the version of the format, by which LeRobot looks it up.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuesheet.artifacts.layout import Layout
from cuesheet.config.hub_address import HubDataset, parse_hub_address
from cuesheet.dataset import hub
from cuesheet.dataset.metadata import Dataset, read_dataset
from cuesheet.errors import CuesheetError
from cuesheet.report.card import make_card


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 for a mistake, which is said in one line."""
    given = _parser().parse_args(arguments)
    try:
        url = push(
            Path(given.results),
            given.repo_id,
            private=not given.public,
            overwrite=given.overwrite,
            tag=given.tag,
        )
    except CuesheetError as error:
        print(f"Cuesheet: {error}", file=sys.stderr)
        return 1
    print(url)
    return 0


def push(
    results: Path, repo_id: str, *, private: bool = True, overwrite: bool = False, tag: str | None
) -> str:
    """Upload `results/annotated`; returns the address of the commit.

    Args:
        results: the results folder of a dataset.
        repo_id: user/name of the repository.
        private: of a new repository; one that is there stays as it is.
        overwrite: write into a repository that is there, even the source's.
        tag: a further tag than that of the format's version.

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
        CommitOperationAdd(path.relative_to(annotated).as_posix(), path)
        for path in sorted(annotated.rglob("*"))
        if path.is_file() and not _is_left_out(path, annotated)
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
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CuesheetError(
            f"{path} is not there: the run of this dataset is not finished; run it to its end first"
        ) from None
    dataset = read_dataset(layout.annotated, layout.dataset)
    files = dataset.files_of((e.episode_index for e in dataset.episodes), unseen=True)
    absent = [file for file in files if not dataset.is_there(file)]
    if absent:
        raise CuesheetError(
            f"{layout.annotated} is part of a dataset: {len(absent)} files that its metadata "
            f"names are not here, such as {absent[0]}; annotate it with all episodes to push it"
        )
    return dataset, summary


def _is_left_out(path: Path, annotated: Path) -> bool:
    return path.name.startswith(".snakemake") or path == annotated / "README.md"


def _deletions(there: Sequence[str], additions: Sequence[Any]) -> list[Any]:
    """Data, videos and metadata of an earlier version that this one does not have."""
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
    parser.add_argument("results", help="results folder of a dataset: results/NAME")
    parser.add_argument("repo_id", help="repository to make: user/name")
    parser.add_argument("--public", action="store_true", help="not private")
    parser.add_argument("--tag", help="a further tag, such as v1")
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a repository that is there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
