"""What holds for all tests."""

from __future__ import annotations

import asyncio

# On Python 3.11, the first ``asyncio.get_event_loop()`` of a thread makes a loop that nobody closes:
# pytest-asyncio asks, and some later test would fail on the ResourceWarning. Said "none", it makes none.
asyncio.set_event_loop(None)
