"""The power is cut before each step of each operation: ext4 loses what was not forced out (EXT4_IOC_SHUTDOWN), and what
was answered has happened nevertheless.
"""

import pytest
from cases import CASES
from outcomes import Fault
from world import Layout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_power_an_operation_happened_or_did_not(matrix, case):
    matrix.cut(case, Fault.POWER, 5)


@pytest.mark.parametrize("fault", [Fault.POWER_OF_TREE, Fault.POWER_OF_STATE], ids=["tree", "state"])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in ("lock", "unlock")], ids=lambda case: case.name)
def test_where_one_of_two_disks_loses_power_an_operation_happened_or_did_not(matrix, case, fault):
    matrix.cut(case, fault, 4, Layout.APART)
