"""Hooks of MkDocs that complete the documentation site (mkdocs.yml).

- README.md, config/README.md, CONTRIBUTING.md and CHANGELOG.md become pages. Links between them and
  docs/ are adapted; links to other files of the repository become plain text.
- `<!-- error messages -->` in troubleshooting.md is replaced by every message of the library.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARY = REPOSITORY / "scripts" / "cuesheet"
PAGES = {
    "README.md": "index.md",
    "config/README.md": "running.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
MESSAGES = "<!-- error messages -->"
PACKAGES = {
    "config": "Settings",
    "workflow": "Checks before a run",
    "dataset": "The source dataset",
    "media": "Videos and images",
    "signals": "Recorded signals",
    "artifacts": "Files of a run, corrections",
    "vlm": "Requests and replies",
    "serving": "Model servers and the response cache",
    "annotate": "Annotation",
    "assemble": "The annotated dataset",
    "evaluation": "Evaluation",
    "report": "Report, review, upload",
    "cluster": "Shards and clusters",
    "app": "Commands",
}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:|#|/")


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = adapt_links((REPOSITORY / source).read_text(encoding="utf-8"), source, page)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = page.file.src_uri
    if source not in PAGES.values():
        markdown = adapt_links(markdown, f"docs/{source}", source)
    return markdown.replace(MESSAGES, error_messages())


def adapt_links(text: str, source: str, page: str) -> str:
    """Make links of the repository file `source` work on the page `page` of the site."""

    def adapt(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        if _ELSEWHERE.match(target):
            return match[0]
        path, _, anchor = target.partition("#")
        whole = (REPOSITORY / source).parent.joinpath(path).resolve()
        relative = whole.relative_to(REPOSITORY).as_posix()
        if relative in PAGES:
            target = PAGES[relative]
        elif relative.startswith("docs/") and whole.suffix in (".md", ".png"):
            target = relative.removeprefix("docs/")
        else:
            return label
        return f"{mark}[{label}]({target}{'#' + anchor if anchor else ''})"

    return _LINK.sub(adapt, text)


def error_messages() -> str:
    """Return every message of the library's errors as Markdown, one section per package."""
    sections: dict[str, set[str]] = defaultdict(set)
    for path in sorted(LIBRARY.rglob("*.py")):
        package = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
        sections[PACKAGES.get(package, "General")].update(messages_of(path))
    parts = []
    for title in [*PACKAGES.values(), "General"]:
        if sections[title]:
            lines = "\n".join(f"- {message}" for message in sorted(sections[title]))
            parts.append(f"### {title}\n\n{lines}\n")
    return "\n".join(parts)


def messages_of(path: Path) -> set[str]:
    """Return the messages of the errors that a module raises, `…` in place of values."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        raised = node.exc if isinstance(node, ast.Raise) else None
        if not isinstance(raised, ast.Call) or not raised.args:
            continue
        name = ast.unparse(raised.func).rpartition(".")[2]
        message = _template(raised.args[0])
        if name.endswith("Error") and message.strip("… :;.\n"):
            found.add(" ".join(message.split()))
    return found


def _template(node: ast.expr) -> str:
    """Return the text of a string expression, escaped for Markdown."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
        case ast.JoinedStr(values=values):
            return "".join(_template(value) for value in values)
        case ast.FormattedValue(value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return f"*{name.replace('_', ' ').strip()}*"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left) + _template(right)
    return "…"
