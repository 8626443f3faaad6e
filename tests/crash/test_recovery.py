"""guardd is killed, or loses power, before each step of recovering from an operation that was killed: the next recovery leads
to where an undisturbed one does.
"""

import pytest
from cases import RECOVERIES
from matrix import Cut
from outcomes import Fault

FAULTS = {"kill": Fault.KILL, "power": Fault.POWER}


@pytest.mark.parametrize(
    "cut", [pytest.param(Cut(case, fault, 3), id=f"{case.name}-{how}") for case in RECOVERIES for how, fault in FAULTS.items()]
)
def test_a_recovery_that_is_cut_short_is_recovered_from(matrix, cut):
    matrix.hold(cut)
