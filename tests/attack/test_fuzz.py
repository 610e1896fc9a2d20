"""The small form of the fuzzing; `python tests/attack/fuzz.py` runs the full form."""

import contextlib

import pytest
from attack import fuzz


@pytest.mark.parametrize("target", fuzz.PURE, ids=lambda target: target.__name__)
def test_any_input_is_read_or_rejected(target):
    assert fuzz.run_fuzz(target, examples=150, seed=1)[0] >= 100


def test_any_request_to_the_gateway_is_answered_or_rejected(tmp_path):
    gateway = fuzz.GatewayFuzz(tmp_path)
    with contextlib.closing(gateway):
        assert fuzz.run_fuzz(fuzz.gateway_fuzz(gateway), examples=100, seed=1)[0] >= 60
