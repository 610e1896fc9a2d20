"""Checks of the machine before any job starts."""

import pytest

from cuesheet.errors import CuesheetError
from cuesheet.workflow.checks import check_interpreter


def test_a_space_in_the_path_of_python_is_reported_in_one_line():
    with pytest.raises(CuesheetError, match="contains a space") as caught:
        check_interpreter("/home/me/my work/.venv/bin/python")
    assert "\n" not in str(caught.value)
    check_interpreter("/home/me/work/.venv/bin/python")
