"""How the jobs of a run find its servers, with one run and with two in the same process."""

import os

import pytest

from cuesheet.vlm.run_environment import (
    MODULE_VARIABLE,
    SERVER_FILE_VARIABLE,
    explain_missing_server,
    find,
    publish,
    withdraw,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (SERVER_FILE_VARIABLE, MODULE_VARIABLE):
        monkeypatch.setenv(name, "")


def test_a_job_of_the_only_run_finds_its_server_from_any_folder():
    publish(SERVER_FILE_VARIABLE, "results", "/run/server.json")
    assert find(SERVER_FILE_VARIABLE, "results/a/keyframes/000000") == "/run/server.json"
    assert find(SERVER_FILE_VARIABLE, ".snakemake/storage/copy/000000") == "/run/server.json"
    assert withdraw(SERVER_FILE_VARIABLE, "results") == "/run/server.json"
    assert SERVER_FILE_VARIABLE not in os.environ
    assert find(SERVER_FILE_VARIABLE, "results/a/keyframes/000000") is None


def test_with_two_runs_a_job_finds_the_server_of_its_own_results_folder():
    publish(SERVER_FILE_VARIABLE, "results", "/one")
    publish(SERVER_FILE_VARIABLE, "results/second", "/two")
    assert find(SERVER_FILE_VARIABLE, "results/a/plan") == "/one"
    assert find(SERVER_FILE_VARIABLE, "results/second/a/plan") == "/two"
    assert find(SERVER_FILE_VARIABLE, "results2/a/plan") is None
    assert withdraw(SERVER_FILE_VARIABLE, "results") == "/one"
    assert withdraw(SERVER_FILE_VARIABLE, "results") is None
    assert find(SERVER_FILE_VARIABLE, "elsewhere") == "/two"


def test_the_error_names_the_hooks_only_if_the_workflow_is_a_module():
    assert "start it with snakemake" in explain_missing_server("results/a/plan")
    publish(MODULE_VARIABLE, "results", "notes")
    message = explain_missing_server("results/a/plan")
    assert "`onstart: notes.onstart()`" in message
    assert "docs/module.md" in message
