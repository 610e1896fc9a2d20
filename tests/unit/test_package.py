"""The installed package: a light import, public names on demand, and the command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from processes import imported_after

import cuesheet
from cuesheet.app import cli


def test_importing_the_package_loads_neither_pandas_nor_pyarrow():
    assert not {"pandas", "pyarrow", "numpy", "pydantic"} & imported_after("import cuesheet")


def test_public_names_are_loaded_on_demand():
    for name in cuesheet.__all__:
        assert getattr(cuesheet, name).__name__ == name
        assert name in dir(cuesheet)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cuesheet.nothing  # noqa: B018


def test_a_wheel_has_the_library_its_data_and_the_command(repository, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, repository],
        check=True,
    )
    (wheel,) = tmp_path.glob(f"cuesheet_workflow-{cuesheet.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "cuesheet = cuesheet.app.cli:main" in archive.read(entry_points).decode()
    library = repository / "scripts"
    for package in ("cuesheet", "demo_vlm"):
        expected = {
            str(path.relative_to(library))
            for path in (library / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert expected <= names


def test_an_unknown_command_names_the_closest_one(capsys):
    assert cli.main(["statsu"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"cuesheet {command}" in capsys.readouterr().out


def test_no_document_installs_the_project_of_another_name(repository):
    for path in [*repository.glob("*.md"), *repository.glob("docs/**/*.md")]:
        assert "pip install cuesheet\n" not in Path(path).read_text()


def test_the_citation_has_the_version_of_the_package(repository):
    citation = (repository / "CITATION.cff").read_text()
    assert f"\nversion: {cuesheet.__version__}\n" in citation
