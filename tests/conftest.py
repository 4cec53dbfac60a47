"""What all tests share: clear failures in shared suites, and no event loop left lying around."""

import asyncio

import pytest

pytest.register_assert_rewrite("helpers.conformance.store_suite")

# On Python 3.11 whatever asks the policy for the current loop gets one that nobody closes, and its
# warning fails a later test. With no loop set, asking is an error where it happens.
asyncio.set_event_loop(None)
