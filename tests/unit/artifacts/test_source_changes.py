"""Changes of a source: new, removed, recorded again, renumbered."""

from cuesheet.artifacts.source_changes import Changes, compare, describe, read_changes, record


def of(text: str) -> dict[int, str]:
    return dict(enumerate(text))


def test_growth_and_nothing():
    assert not compare(of("abc"), of("abc"))
    assert compare(of("abc"), of("abcde")) == Changes(added=[3, 4])


def test_recorded_again():
    assert compare(of("abc"), of("axc")) == Changes(replaced=[1])


def test_deleting_an_episode_renumbers_the_following_ones():
    assert compare(of("abcd"), of("acd")) == Changes(removed=[1], renumbered={2: 1, 3: 2})


def test_the_last_ones_were_deleted():
    assert compare(of("abcd"), of("ab")) == Changes(removed=[2, 3])


def test_episodes_that_look_the_same_are_not_confused():
    assert compare(of("aab"), of("aabb")) == Changes(added=[3])
    assert compare(of("aabb"), of("abb")) == Changes(removed=[1], renumbered={3: 1})


def test_changes_are_recorded_and_described(tmp_path):
    record(tmp_path, Changes(added=[4, 5]))
    record(tmp_path, Changes(removed=[1], renumbered={2: 1, 3: 2}))
    told = [describe(change) for change in read_changes(tmp_path)]
    assert told == ["2 new (4-5)", "1 removed (1), 2 renumbered (2 is now 1, 3 is now 2)"]
