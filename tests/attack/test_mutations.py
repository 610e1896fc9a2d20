"""The small form of the mutations; `python tests/attack/mutations.py` runs the full form."""

from attack import mutations


def test_mutated_datasets_end_with_the_right_result_or_one_clear_message(demo_v3, tmp_path):
    bases = mutations.make_bases(demo_v3, tmp_path)
    results = mutations.run_mutations(bases, tmp_path, count=60, seed=7)
    assert [result for result in results if result.problem] == []
    assert {result.outcome for result in results} == {"accepted", "rejected"}
    assert {result.base for result in results} == {"v30", "v21", "images"}
