"""Commands inside the sentences of README.md, CONTRIBUTING.md and docs name what exists.

`tests/workflow/test_documented_commands.py` runs the commands of code blocks.
"""

import importlib
import re
from pathlib import Path

import pytest

from cuesheet.app.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
# Code in a sentence may continue on the next line.
INLINE = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", TEXT)]
BLOCKS = [
    line for block in re.findall(r"```\w*\n(.*?)```", TEXT, re.S) for line in block.split("\n")
]


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def test_targets_of_make_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    named = {
        match[1] for code in [*INLINE, *BLOCKS] if (match := re.match(r"make ([a-z-]+)", code))
    }
    assert {"demo", "test", "lint"} <= named
    assert not [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)]


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_commands_exist(name, capsys):
    used = [code for code in INLINE if re.match(rf"cuesheet {name}\b", code)]
    options = {option for code in used for option in options_in(code)}
    if not options:
        return
    subcommands = {code.split()[2] for code in used if len(code.split()) > 2} & {"export", "verify"}
    module = importlib.import_module(COMMANDS[name][0])
    shown = ""
    for arguments in ([], *([one] for one in sorted(subcommands))):
        with pytest.raises(SystemExit):
            module.main([*arguments, "--help"])
        shown += capsys.readouterr().out
    assert options <= options_in(shown), (
        f"cuesheet {name} has no {sorted(options - options_in(shown))}"
    )


def test_commands_in_sentences_exist():
    named = {match[1] for code in INLINE if (match := re.match(r"cuesheet ([a-z][a-z-]*)", code))}
    assert named <= COMMANDS.keys()


def test_programs_in_sentences_and_their_options_exist():
    programs = [code for code in INLINE if re.match(r"python (benchmarks|tests|docs)/", code)]
    assert programs
    for code in programs:
        path = REPOSITORY / code.split()[1]
        assert path.is_file(), code
        # Options are defined in the program or described in its docstring.
        missing = [one for one in options_in(code) if f'"{one}"' not in path.read_text()]
        assert not missing, f"{code}: {missing}"


def test_files_of_tests_and_programs_that_pages_name_exist():
    files = set(
        re.findall(r"(?<![\w/])((?:tests|benchmarks|scripts|profiles)/[\w./-]+\.\w+)", TEXT)
    )
    assert files
    assert not [name for name in sorted(files) if not (REPOSITORY / name).is_file()]
