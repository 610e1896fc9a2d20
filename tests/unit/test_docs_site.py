"""The hooks of the documentation site: links, and the list of error messages."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def hooks(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", repository / "docs/site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "link", "adapted"),
    [
        ("README.md", "[a](docs/review.md)", "[a](review.md)"),
        ("README.md", "![a](docs/images/review.png)", "![a](images/review.png)"),
        ("README.md", "[a](config/README.md#the-prompts)", "[a](running.md#the-prompts)"),
        ("README.md", "[a](LICENSE)", "a"),
        ("config/README.md", "[a](../docs/prompts.md)", "[a](prompts.md)"),
        ("docs/formats.md", "[a](../config/README.md)", "[a](running.md)"),
        ("docs/formats.md", "[a](review.md#b)", "[a](review.md#b)"),
        ("README.md", "[a](https://example.org/b.md)", "[a](https://example.org/b.md)"),
    ],
)
def test_links_between_files_become_links_between_pages(hooks, source, link, adapted):
    assert hooks.adapt_links(link, source, "") == adapted


def test_messages_of_raised_errors_are_found_with_names_for_their_values(hooks, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "raise CuesheetError(f'{path} has no {\", \".join(names)}; copy it')\n"
        "raise errors.HubError('no network')\n"
        "raise ValueError(text)\n"
        "raise error\n"
    )
    assert hooks.messages_of(path) == {"*path* has no …; copy it", "no network"}


def test_the_page_lists_messages_of_every_package_that_raises_errors(hooks):
    text = hooks.error_messages()
    assert "there is no folder *path*" in text
    assert "does not answer" in text
    assert text.count("\n- ") > 200


def test_every_page_in_the_navigation_exists(hooks, repository: Path):
    listed = [
        line.rpartition(": ")[2].strip()
        for line in (repository / "mkdocs.yml").read_text().splitlines()
        if line.strip().startswith("- ") and line.endswith(".md")
    ]
    assert len(listed) == len(set(listed)) > 15
    for page in listed:
        assert page in hooks.PAGES.values() or (repository / "docs" / page).is_file(), page


def test_every_picture_is_drawn_by_the_script(repository: Path):
    script = (repository / "docs/make_pictures.py").read_text()
    images = [path.stem for path in (repository / "docs/images").iterdir()]
    assert sorted(images) == ["contact_sheet", "review"]
    assert all(f'("{name}", draw_' in script for name in images)
