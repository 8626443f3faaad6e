"""guardd is killed before each step of each operation: the tree is as before or as after, and everything agrees with it."""

import pytest
from cases import CASES
from matrix import every, everything
from points import Fault

OFTEN = {"lock": everything, "unlock": everything}
"""The others are cut at every turn and some steps between."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_any_step_an_operation_happened_or_did_not(matrix, case):
    matrix.cut(case, Fault.KILL, OFTEN.get(case.name, every(4)))
