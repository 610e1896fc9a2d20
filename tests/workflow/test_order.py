"""The order in which jobs start if several could."""

import pytest

pytestmark = pytest.mark.workflow


def test_episodes_are_prepared_in_order_and_plans_run_ahead_of_visual_questions(work, demo_v3):
    work.configure(dataset=str(demo_v3), vqa={"types": ["count"]})
    results = work.path / "results" / "demo_v3"

    def run(*options: str, stages: tuple[str, ...]) -> list[tuple[str, int]]:
        """Return what was made, in this order: stage and episode."""
        work.run("annotations", "--cores", "1", "--resources", "vlm_jobs=1", *options)
        files = [path for stage in stages for path in (results / stage).glob("0*")]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        return [(path.parent.name, int(path.stem)) for path in files]

    until = ("--until", "decode_keyframes", "extract_signals")
    prepared = run(*until, stages=("keyframes", "signals"))
    assert [episode for _, episode in prepared] == [0, 0, 1, 1, 2, 2, 3, 3]
    annotated = run(stages=("plan", "interjections", "vqa"))
    assert annotated == [
        *(("plan", 0), ("interjections", 0), ("plan", 1), ("interjections", 1), ("vqa", 0)),
        *(("plan", 2), ("interjections", 2), ("vqa", 1)),
        *(("plan", 3), ("interjections", 3), ("vqa", 2)),
        ("vqa", 3),
    ]
