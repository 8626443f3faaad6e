"""guardd is killed before each step of each operation: the tree is as before or as after, and everything agrees with it."""

import pytest
from cases import CASES
from outcomes import Fault

OFTEN = {"lock": 12, "unlock": 12}
"""What the others do, too."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_any_step_an_operation_happened_or_did_not(matrix, case):
    matrix.cut(case, Fault.KILL, OFTEN.get(case.name, 6))
