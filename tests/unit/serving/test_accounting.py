"""Usage of the model servers, summed over runs."""

from cuesheet.serving.accounting import account_of


def usage(*datasets: str, gpus: int = 0) -> dict:
    return {
        "datasets": list(datasets),
        "started_at": 100.0,
        "updated_at": 130.0,
        "ended": True,
        "gpus": gpus,
        "calls": {"plan": 3, "vqa": 4},
        "calls_per_s": 0.0,
        "seconds": {"unused": 10.0, "loading": 4.0, "busy": 10.0, "idle": 6.0, "failed": 0.0},
        "busy_by_stage": {"plan": 3.0, "vqa": 7.0},
    }


def test_a_run_of_two_datasets_counts_once():
    account = account_of([usage("a", "b"), usage("c")], ["a", "b"], now=200.0)
    assert account.calls == 7
    assert account.wall_s == 30.0


def test_the_last_line_of_a_run_with_gpus_says_what_they_cost_and_how_long_they_were_idle():
    account = account_of([usage("a", gpus=2)] * 60, ["a"], now=200.0)
    assert account.short_text() == (
        "the model server used 1.00 GPU hours: it was up for 20.0 min, 6.0 min of them without a "
        "request"
    )
