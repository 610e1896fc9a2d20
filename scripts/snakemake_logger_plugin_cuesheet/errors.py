"""Rewrites Snakemake's errors: what happened, where, and what to do, in one line each.

The patterns were checked with the version of Snakemake that rules/concurrency.smk names. A text
that no pattern matches is shown without its file names, line numbers and traceback.
"""

import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_TARGETS = ("all", "media", "annotations", "datasets", "exports", "reports", "evaluate")
_HEADER = re.compile(
    r'^(\w+(Error|Exception|Warning))( in rule \S+)?( in file ".*", line \d+)?[:.]?$'
)
NO_SPACE = (
    "no space left on device; free space on the disk and run again: finished files are reused"
)
_FRAME = re.compile(r'^\s*File ".*", line \d+, in ')
_CONFIG_ADVICE = (
    "--config takes NAME=VALUE with a top-level setting as NAME; write nested settings as YAML in "
    "quotes"
)


def one_line(exception: str | None, text: str) -> str:
    """Return the message for the terminal.

    Args:
        exception: name of the exception's class, if Snakemake says it.
        text: the message as Snakemake formatted it.
    """
    message = _strip(text)
    for pattern, explain in _EXPLANATIONS:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return explain(found, message)
    if "Traceback (most recent call last)" in text:
        return f"{message} (run again with --verbose for the traceback)"
    return message


def _strip(text: str) -> str:
    """Remove headers, stack frames and wildcards; of a traceback keep the last line."""
    if "Traceback (most recent call last)" in text:
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip()
    text = re.sub(r"\nWildcards:\n.*", "", text, flags=re.DOTALL)
    lines = [
        line
        for line in text.splitlines()
        if line.strip() not in ("Error:", "Traceback:")
        and not _HEADER.match(line.strip())
        and not _FRAME.match(line)
    ]
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    shortest = min(indents, default=0)
    return "\n".join(line[shortest:] for line in lines).strip().removeprefix("Error: ")


def _locked(found: re.Match[str], _: str) -> str:
    folder = Path(found["folder"].strip())
    pid = _running_process(folder)
    if pid is not None:
        return (
            f"another run (process {pid}) works in {folder}; wait until it has ended, or use "
            "another folder (--directory FOLDER)"
        )
    return (
        f"{folder} is locked: an earlier run there was killed, or another run works there. If no "
        "Snakemake process works there, unlock it with `snakemake --unlock` and run again"
    )


def _running_process(folder: Path) -> int | None:
    """Return the process of a run of ours that works in `folder`."""
    from cuesheet.files import read_json
    from cuesheet.process_status import is_running

    for path in (folder / ".cuesheet" / "runs").glob("*/server.json"):
        pid = read_json(path).get("parent_pid")
        if is_running(pid):
            return pid
    return None


def _unknown_target(found: re.Match[str], _: str) -> str:
    target = found["target"].strip()
    near = difflib.get_close_matches(target, _TARGETS, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; the targets are {', '.join(_TARGETS)}"
    return f"no rule makes {target}{hint} (Snakemake: --list-target-rules)"


def _bad_yaml(_: re.Match[str], __: str) -> str:
    """Find the file and the line; Snakemake says neither."""
    import yaml

    for path in (*_values_of("--configfile", "--configfiles"), "config/config.yaml"):
        try:
            yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "the syntax is wrong"
            return f"{path}{line}: not valid YAML: {problem}; correct the file"
        except UnicodeDecodeError:
            return f"{path}: not valid YAML: the file is not UTF-8 text"
        except OSError:
            continue
    return "a configuration file is not valid YAML; check indentation and brackets"


def _bad_config(found: re.Match[str], message: str) -> str:
    entries = _values_of("--config", "-C")
    for entry in entries:
        name, equals, value = entry.partition("=")
        section, dot, rest = name.partition(".")
        if equals and dot:
            nested = f"{rest.replace('.', ': {')}: {value}" + "}" * rest.count(".")
            return f"--config {entry}: {_CONFIG_ADVICE}: --config '{section}={{{nested}}}'"
        if not equals:
            return f"--config {entry}: {_CONFIG_ADVICE}: --config 'vlm={{serve: external}}'"
    return f"{message.partition(': ')[2] or message}: {_CONFIG_ADVICE}"


def _missing_file(found: re.Match[str], _: str) -> str:
    path = found["path"]
    if path in _values_of("--configfile", "--configfiles"):
        return f"--configfile {path} does not exist; check the path"
    return f"{path} does not exist"


def _not_writable(found: re.Match[str], _: str) -> str:
    return (
        f"{found['path']} cannot be written ({found['cause'].lower()}); choose another folder with "
        "--directory, or change its permissions"
    )


def _values_of(*options: str) -> list[str]:
    """Return the command line's values of an option: those up to the next option."""
    values: list[str] = []
    arguments: Sequence[str] = sys.argv[1:]
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in options and equals:
            values.append(value)
        elif argument in options:
            for following in arguments[position + 1 :]:
                if following.startswith("-"):
                    break
                values.append(following)
    return values


def _fixed(text: str) -> Callable[[re.Match[str], str], str]:
    return lambda found, message: text.format(**found.groupdict())


# The first pattern that is found in Snakemake's text decides.
_EXPLANATIONS: tuple[tuple[str, Callable[[re.Match[str], str], str]], ...] = (
    (r"cannot be locked.*?directory:\n(?P<folder>[^\n]+)", _locked),
    (r"No rule to produce (?P<target>.+?) \(", _unknown_target),
    (
        r"cores have to be specified|you need to specify the maximum number of CPU cores",
        _fixed("--cores is missing; say how many CPU cores to use: snakemake --cores all"),
    ),
    (r"Config file is not valid JSON or YAML", _bad_yaml),
    (r"Invalid config definition|Config entr(y|ies) must", _bad_config),
    (
        r"(PermissionError|OSError): \[Errno \d+\] "
        r"(?P<cause>Permission denied|Operation not permitted|Read-only file system)"
        r": '(?P<path>[^']*)'",
        _not_writable,
    ),
    (r"\[Errno 28\] No space left on device", _fixed(NO_SPACE)),
    (r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?P<path>[^']*)'", _missing_file),
    (
        r"Missing input files for rule (?P<rule>\w+):.*?affected files:\n\s*(?P<path>[^\n]+)",
        _fixed("{path}, an input of {rule}, does not exist"),
    ),
    (
        r"KeyboardInterrupt|Cancelling snakemake on user request",
        _fixed("interrupted"),
    ),
    (
        r"At least one job did not complete successfully",
        _fixed("at least one job failed; the causes are above"),
    ),
)
