"""Which pairs of labels the model judges, and how its verdicts about several tasks are merged."""

import pytest

from cuesheet.errors import SurroundingsError
from cuesheet.evaluation import judge
from cuesheet.evaluation.references import Reference
from cuesheet.evaluation.segments import Segment
from cuesheet.vlm.client import Answer
from cuesheet.vlm.replies import Verdict


def reference(*segments: tuple[float, float, str], episode: int = 0) -> Reference:
    return Reference({episode: [Segment(*one) for one in segments]})


def asked(predicted: Reference, true: Reference) -> list[judge.Question]:
    return judge.questions(predicted, true, {0: "tidy up"})


def test_labels_of_segments_that_overlap_are_judged():
    predicted = reference((0, 4, "grab the cup"), (4, 8, "drop it"))
    true = reference((0, 4, "pick up the mug"), (4, 8, "put down the mug"))
    assert asked(predicted, true) == [
        ("tidy up", "grab the cup", "pick up the mug"),
        ("tidy up", "drop it", "put down the mug"),
    ]


def test_equal_missing_and_distant_labels_need_no_verdict():
    same = reference((0, 4, "Pick up the cup."))
    assert asked(same, reference((0, 4, "pick up the cup"))) == []
    assert asked(reference((0, 4, "")), reference((0, 4, "pick up the cup"))) == []
    assert asked(reference((0, 1, "grab")), reference((0, 20, "pick up"))) == []
    assert asked(same, reference((0, 4, "grab"), episode=1)) == []


def test_the_same_pair_is_judged_once_per_task():
    twice = Reference({0: [Segment(0, 4, "grab")], 1: [Segment(0, 4, "grab")]})
    true = Reference({0: [Segment(0, 4, "pick up")], 1: [Segment(0, 4, "pick up")]})
    assert len(judge.questions(twice, true, {})) == 1
    assert len(judge.questions(twice, true, {0: "tidy up", 1: "cook"})) == 2


class Model:
    """Gives the verdict that its table has for a task; None is an invalid reply."""

    def __init__(self, verdicts: dict[str, bool | None]) -> None:
        self._verdicts = verdicts
        self.calls: list[dict] = []

    async def __aenter__(self) -> "Model":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def ask(self, *, text: str, **_: object) -> Answer[Verdict]:
        (said,) = [said for task, said in self._verdicts.items() if task in text]
        self.calls.append({"text": text})
        return Answer(None if said is None else Verdict(same=said), "", {})


@pytest.fixture
def verdicts(monkeypatch, tmp_path, repository):
    """Judge one pair for every task of a table of verdicts."""
    prompts = [
        str(repository / f"config/prompts/{name}.md") for name in ("system", "evaluate_judge")
    ]

    async def of(table: dict[str, bool | None]) -> judge.Verdicts:
        model = Model(table)
        monkeypatch.setattr(judge, "find", lambda variable, results: "server.json")
        monkeypatch.setattr(judge.Vlm, "connect", lambda *arguments, **named: model)
        found, calls = await judge.judge(
            [(task, "grab", "pick up") for task in table],
            prompts=prompts,
            model_settings={"model": "m", "sampling": {}},
            results=tmp_path,
        )
        assert len(calls) == len(table)
        return found

    return of


async def test_the_majority_of_the_tasks_decides(verdicts):
    assert await verdicts({"sort": True, "cook": True, "wash": False}) == {
        ("grab", "pick up"): True
    }
    assert await verdicts({"sort": True, "cook": False}) == {("grab", "pick up"): False}


async def test_a_pair_without_a_valid_reply_has_no_verdict(verdicts):
    assert await verdicts({"sort": None}) == {}


async def test_without_a_server_the_error_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setattr(judge, "find", lambda variable, results: None)
    with pytest.raises(SurroundingsError):
        await judge.judge([], prompts=[], model_settings={}, results=tmp_path)
