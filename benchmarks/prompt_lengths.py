"""Length of every prompt file in tokens, at an earlier revision and today.

    python benchmarks/prompt_lengths.py REVISION

Template tags (`{% ... %}`, `{{ ... }}`) do not count; all branches of a template do, so a request
is shorter than its prompt file plus its values. Tokens follow the demo model's rule of 4.4
characters per token. Visual questions are composed of `vqa_frame`, `vqa_topic` and their own file.
"""

import argparse
import re
import subprocess
import sys

from measuring import REPOSITORY

from cuesheet.vlm.token_counts import token_counter

PROMPTS = "config/prompts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="revision of the repository to compare with")
    revision = parser.parse_args().revision
    before, after = prompts_at(revision), prompts_now()
    print(f"{'prompt':<28}{'before':>8}{'after':>8}   tokens")
    for name in sorted(before.keys() | after.keys()):
        columns = (tokens(texts[name]) if name in texts else "-" for texts in (before, after))
        print(f"{name:<28}" + "".join(f"{value:>8}" for value in columns))


def tokens(text: str) -> int:
    """Return the tokens of a prompt without its template tags."""
    plain = re.sub(r"{%.*?%}\n?|{{.*?}}|{#.*?#}", "", text, flags=re.DOTALL)
    return round(token_counter("cuesheet-demo-1", None).text_rule(plain))


def prompts_now() -> dict[str, str]:
    return {path.stem: path.read_text() for path in (REPOSITORY / PROMPTS).glob("*.md")}


def prompts_at(revision: str) -> dict[str, str]:
    """Return the prompts of a revision by name."""
    files = git("ls-tree", "--name-only", revision, f"{PROMPTS}/").split()
    return {
        file.removeprefix(f"{PROMPTS}/").removesuffix(".md"): git("show", f"{revision}:{file}")
        for file in files
    }


def git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
