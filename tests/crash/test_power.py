"""The power is cut before each step of each operation: ext4 loses what was not forced out (EXT4_IOC_SHUTDOWN), and what
was answered has happened nevertheless.
"""

import pytest
from cases import CASES
from matrix import every
from points import Fault


@pytest.mark.parametrize("seal", ["read-only"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_power_an_operation_happened_or_did_not(matrix, case, seal):
    matrix.cut(case, seal, Fault.POWER, every(6))
