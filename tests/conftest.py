"""What all tests share: clear failures in shared suites, and nothing that depends on the weather.

Properties are checked with the same examples in each run: a run of an unchanged tree gives an
unchanged result, and a busy machine fails nothing. `--hypothesis-profile=random` draws new examples,
`make fuzz` draws many.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("helpers.conformance.store_suite")

# On Python 3.11 whatever asks the policy for the current loop gets one that nobody closes, and its
# warning fails a later test. With no loop set, asking is an error where it happens.
asyncio.set_event_loop(None)

# How long an example takes says more about what else runs on the machine than about our code.
settings.register_profile(
    "random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("steady", settings.get_profile("random"), derandomize=True)
settings.load_profile("steady")
