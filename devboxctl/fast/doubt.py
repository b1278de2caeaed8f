"""Whether the daemon answers at all: asked, beside everything else, when something is due and does not come.

A daemon that is stopped or stuck keeps its socket open and takes what is sent; without asking, a command would
wait for ever and a terminal would swallow keys.
"""

from __future__ import annotations

from devboxd.api import client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devboxd.api.starting import Probe


class Doubt:
    """Waits for a sign of life. The owner polls ``descriptor``, and calls ``on_time`` when ``due``."""

    def __init__(self) -> None:
        self.due: float | None = None  # monotonic seconds
        self._probe: Probe | None = None
        self._last = False  # the probe has been waited for once

    @property
    def descriptor(self) -> int | None:
        """Where the answer to our question comes."""
        return None if self._probe is None else self._probe.descriptor

    def expect(self, now: float) -> None:
        """Something is due: an answer, or credit for what was sent."""
        if self.due is None:
            self.due = now + client.PATIENCE

    def heard(self) -> None:
        """It has said something."""
        self.due = None
        self._forget()

    def close(self) -> None:
        """Ask no more."""
        self.heard()

    def on_answer(self, now: float) -> None:
        """The question was answered, or its connection is over: what is due comes from further away."""
        self._forget()
        self.due = now + client.ASK_AGAIN

    def on_time(self, now: float) -> client.NotAnswering | None:
        """Ask, or give up. Returns what is wrong; ``is_sure`` says whether there is any use in waiting."""
        from devboxd.api import starting

        path = client.socket_path()
        pid = starting.process_id(path)
        if self._probe is None and not starting.is_frozen(pid):
            try:
                self._probe = starting.Probe(path)
            except BlockingIOError:
                pass  # so many wait already that there is no room to
            except (OSError, client.ClientError):
                self.due = now + client.ASK_AGAIN  # it is going away, which our owner will see
                return None
            else:
                self.due = now + client.PATIENCE
                return None
        error = starting.not_answering(pid)
        error.is_sure = self._last or starting.is_frozen(pid)
        self._last = True
        self.due = now + starting.HANG
        return error

    def _forget(self) -> None:
        self._last = False
        if self._probe is not None:
            self._probe.close()
            self._probe = None
