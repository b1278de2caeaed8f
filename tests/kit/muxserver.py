"""The far end of a port session's streams, for tests."""

from __future__ import annotations

from typing import ClassVar

from devboxd.ssm.mux import MuxSession


class MuxServer(MuxSession):
    """Accepts any number, as the real library does, and like it hands out data after the client's FIN."""

    __slots__ = ()
    accepts: ClassVar[bool] = True
    hears_late: ClassVar[bool] = True
