"""The power is cut before each step of each operation: ext4 loses what was not forced out (EXT4_IOC_SHUTDOWN), and what
was answered has happened nevertheless.
"""

import pytest
from cases import BY_NAME, CASES
from matrix import Cut
from outcomes import Fault
from world import Layout

ONE_OF_TWO = {"tree": Fault.POWER_OF_TREE, "state": Fault.POWER_OF_STATE}


@pytest.mark.parametrize("cut", [Cut(case, Fault.POWER, 5) for case in CASES], ids=lambda cut: cut.case.name)
def test_without_power_an_operation_happened_or_did_not(matrix, cut):
    matrix.hold(cut)


@pytest.mark.parametrize(
    "cut",
    [pytest.param(Cut(BY_NAME[name], fault, 4, Layout.APART), id=f"{name}-{disk}") for name in ("lock", "unlock") for disk, fault in ONE_OF_TWO.items()],
)
def test_where_one_of_two_disks_loses_power_an_operation_happened_or_did_not(matrix, cut):
    matrix.hold(cut)
