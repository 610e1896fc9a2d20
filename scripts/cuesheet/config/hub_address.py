"""The address of a dataset on a hub: `hf://datasets/user/name@revision`."""

import re
from dataclasses import dataclass

PREFIX = "hf://"

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_URI = re.compile(rf"hf://datasets/({_REPO_ID.pattern})(?:@([^@\s]+))?")


@dataclass(frozen=True)
class HubDataset:
    """The address of a dataset on the hub; `revision` is a branch, a tag or a commit."""

    repo_id: str
    revision: str

    @property
    def name(self) -> str:
        return self.repo_id.partition("/")[2]

    def __str__(self) -> str:
        return f"{PREFIX}datasets/{self.repo_id}@{self.revision}"


def is_repo_id(text: str) -> bool:
    """Return whether a text has the form user/name."""
    return _REPO_ID.fullmatch(text) is not None


def parse_hub_address(path: str) -> HubDataset | None:
    """Return the hub dataset that a `dataset` setting names; None for a folder.

    Raises ValueError if the setting starts like a hub address but is not a valid one.
    """
    if not path.startswith(PREFIX):
        return None
    found = _URI.fullmatch(path)
    if found is None:
        raise ValueError(
            f"{path!r} is not a dataset on a hub; expected hf://datasets/user/name or "
            "hf://datasets/user/name@revision"
        )
    return HubDataset(found[1], found[2] or "main")
