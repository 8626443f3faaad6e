"""guardd is killed before each step of each operation: the tree is as before or as after, and everything agrees with it."""

import pytest
from cases import CASES
from matrix import Cut
from outcomes import Fault

OFTEN = {"lock": 12, "unlock": 12}
"""What the others do, too."""


@pytest.mark.parametrize("cut", [Cut(case, Fault.KILL, OFTEN.get(case.name, 6)) for case in CASES], ids=lambda cut: cut.case.name)
def test_killed_at_any_step_an_operation_happened_or_did_not(matrix, cut):
    matrix.hold(cut)
