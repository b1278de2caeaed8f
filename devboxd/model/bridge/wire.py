"""What the two ends of a bridge say to each other: frames, their bounds, and what they come to.

Frames begin with their length (four bytes, of what follows) and a type byte; numbers are big-endian.

=====  =======  ==========================================================================================
type   name     fields
=====  =======  ==========================================================================================
1      DATA     stream u32, offset u64, flags u8 (1 packed, 2 last), size u32 unpacked, bytes
2      ACK      stream u32, received u64, credit u64 (both offsets), then pairs of u64: received beyond a gap
3      RESET    stream u32, reason (UTF-8)
4      RESET_OK stream u32: the reset, or data of a stream that is over, has been seen; forget the stream
5      PING     token u64, waiting u64 (bytes that this end could send if it had more lanes)
6      PONG     token u64, waiting u64
7      DEAD     lane u32: nothing comes back over this lane; send over others, and a PING over it
=====  =======  ==========================================================================================

A stream's first bytes are what it is for: two bytes of length and that many of ``purpose``, which the other end
gets as the event ``Opened``. Streams that the near end opens have even numbers, those of the far end odd ones.
"""

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

CHUNK = 16 << 10  # bytes of one DATA frame at most, unpacked: a lane turns to another stream after each
FRAME_MOST = CHUNK + 512  # bytes of a frame: packing never makes a chunk longer than it was
PURPOSE_MOST = 32 << 10  # bytes
REASON_MOST = 300  # bytes of a reset's reason
STREAMS_MOST = 4096  # open at once; one more is refused
WINDOW_FIRST = 256 << 10  # bytes of credit that a new stream gets
WINDOW_MOST = 4 << 20  # bytes that one stream's credit may grow to
WINDOW_HALF = 0.5  # seconds in which the reader of half a window is quick: one session gives 0.7 MiB/s
WINDOWS_TOTAL = 64 << 20  # bytes of credit beyond the first that all streams together may hold
SEND_MOST = 1 << 20  # bytes that a stream takes from its writer and has not sent yet
SEND_LEAST = 64 << 10  # the same while
SENDS_TOTAL = 32 << 20  # bytes that all streams together have taken wait
GAPS_MOST = 2048  # pieces that a stream keeps beyond a gap
RANGES_MOST = 16  # of them told in one ACK
LANE_FIRST = 64 << 10  # bytes that a new lane holds unacknowledged
LANE_LEAST = 16 << 10
LANE_MOST = 256 << 10
QUICK_BULK = 8 << 10  # bytes of bulk that the quick lane holds while there are others
BULK_QUEUE = 4 << 10  # bytes waiting, or
BULK_RATE = 32 << 10  # bytes sent in half a second, that make a stream bulk
DEAD_MOST = 32  # lanes whose end is still to be told
BEHIND = 1.5  # seconds (or eight round trips) without a sign of a lane before its bytes go again over others
FORGIVEN = 10  # times that long may bytes be unacknowledged on a lane that does give signs
PACK_WORTH = 0.9  # a chunk that packs to more than this share goes as it is
PACK_PAUSE = 1 << 20  # bytes of a stream that are not tried after two that did not pack

DATA, ACK, RESET, RESET_OK, PING, PONG, DEAD = 1, 2, 3, 4, 5, 6, 7
PACKED_FLAG, LAST_FLAG = 1, 2
LENGTH_PREFIX = struct.Struct(">I")
DATA_HEAD = struct.Struct(">BIQBI")
ACK_HEAD = struct.Struct(">BIQQ")
ACK_RANGE = struct.Struct(">QQ")
STREAM_HEAD = struct.Struct(">BI")
LANE_HEAD = struct.Struct(">BI")
PING_BODY = struct.Struct(">BQQ")
PURPOSE_HEAD = struct.Struct(">H")
BEFORE_DATA = LENGTH_PREFIX.size + DATA_HEAD.size  # bytes of a DATA frame that are not its stream's

# Events -------------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """The other end opened a stream."""

    stream: int
    purpose: bytes


class Data(NamedTuple):
    """The next bytes of a stream, in order. Say ``consumed`` when the reader took them."""

    stream: int
    data: bytes


class Ended(NamedTuple):
    """The other end will send no more on this stream: half-closed."""

    stream: int


class WasReset(NamedTuple):
    """The stream is gone, in both directions. ``lost``: with bytes of ours that had not arrived."""

    stream: int
    reason: str
    lost: bool = False


class Room(NamedTuple):
    """``write`` takes bytes of this stream again."""

    stream: int


class Answered(NamedTuple):
    """A ping came back."""

    lane: int
    seconds: float


if TYPE_CHECKING:
    Event = Opened | Data | Ended | WasReset | Room | Answered


class BridgeError(Exception):
    """The other end did what can not be. The lane it came over must be closed."""


def frame_of(body: bytes) -> bytes:
    return LENGTH_PREFIX.pack(len(body)) + body


def unpacked(data: bytes, size: int) -> bytes:
    """Unpack to at most one byte more than ``size``: whoever sends more than it says gains nothing."""
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(data, size + 1)
    except zlib.error:
        raise BridgeError("a chunk that can not be unpacked") from None
    if not machine.eof or machine.unused_data:
        raise BridgeError("a chunk that unpacks to something else")
    return found
