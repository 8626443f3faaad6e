"""The disk is full at each step of each operation: it fails with a message that says so or is done, nothing is half done,
and guardd lives. Once, and while a backup is made also until it is over.
"""

import pytest
from cases import BY_NAME, CASES
from outcomes import Fault


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_with_no_space_at_one_step_an_operation_happened_or_failed(matrix, case):
    matrix.cut(case, Fault.FULL_ONCE, 4)


def test_a_disk_that_stays_full_leaves_no_half_of_a_backup(matrix):
    matrix.cut(BY_NAME["backup"], Fault.FULL, 8)
