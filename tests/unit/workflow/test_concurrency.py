"""rules/concurrency.smk depends on Snakemake's internals, which may change with its version."""

import re
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def test_snakemake_is_the_version_that_its_settings_were_checked_with() -> None:
    text = (REPOSITORY / "rules" / "concurrency.smk").read_text()
    (checked,) = re.findall(r'CHECKED_WITH_SNAKEMAKE = "(.+)"', text)
    assert version("snakemake") == checked, (
        "check every function of rules/concurrency.smk with this version of Snakemake, then set "
        "CHECKED_WITH_SNAKEMAKE"
    )


def test_no_other_rules_file_touches_the_settings_of_snakemake() -> None:
    private = (
        r"workflow\.(resource_settings|global_resources|execution_settings|deployment_settings)"
    )
    private += r"|workflow\.(deployment_settings|remote_exec|non_local_exec)|shell\.prefix"
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "rules").glob("*.smk")]
    found = [path.name for path in files if re.search(private, path.read_text())]
    assert found == ["concurrency.smk"]
