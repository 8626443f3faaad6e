"""guardd is killed, or loses power, before each step of recovering from an operation that was killed: the next recovery leads
to where an undisturbed one does.
"""

import pytest
from cases import RECOVERIES
from outcomes import Fault


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.POWER], ids=["kill", "power"])
@pytest.mark.parametrize("case", RECOVERIES, ids=lambda case: case.name)
def test_a_recovery_that_is_cut_short_is_recovered_from(matrix, case, fault):
    matrix.cut(case, fault, 3)
