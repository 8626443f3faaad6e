"""The disk is full at each step of each operation: it fails with a message that says so or is done, nothing is half done,
and guardd lives.
"""

import pytest
from cases import CASES
from matrix import every
from points import Fault


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_with_no_space_at_one_step_an_operation_happened_or_failed(matrix, case):
    matrix.cut(case, Fault.FULL_ONCE, every(4, 7))
