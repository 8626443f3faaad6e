"""The disk is full at each step of each operation: it fails with a message that says so or is done, nothing is half done,
and guardd lives. Once, and while a backup is made also until it is over.
"""

import pytest
from cases import BY_NAME, CASES
from matrix import Cut
from outcomes import Fault


@pytest.mark.parametrize("cut", [Cut(case, Fault.FULL_ONCE, 4) for case in CASES], ids=lambda cut: cut.case.name)
def test_with_no_space_at_one_step_an_operation_happened_or_failed(matrix, cut):
    matrix.hold(cut)


@pytest.mark.parametrize("cut", [Cut(BY_NAME["backup"], Fault.FULL, 8)], ids=lambda cut: cut.case.name)
def test_a_disk_that_stays_full_leaves_no_half_of_a_backup(matrix, cut):
    matrix.hold(cut)
