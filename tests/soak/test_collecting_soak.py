"""What is promised of collection: 10,000 random interleavings, and nothing that is needed was removed."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property.test_collecting import Collecting

pytestmark = pytest.mark.soak


def test_10000_interleavings_remove_nothing_that_is_needed() -> None:
    many = settings(max_examples=10_000, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Collecting, settings=many)
