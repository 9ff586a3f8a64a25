"""Header blocks become calls: the block that starts a stream, finds its method, or ends its request."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.transport import OpenConversation, StatusCode
from headgate.transport.lean.deadlines import Deadlines
from headgate.transport.lean.frames import ConnectionFault, ErrorCode, StreamFault
from headgate.transport.lean.header_blocks import HeaderReader
from headgate.transport.lean.messages import is_known_encoding
from headgate.transport.lean.outbox import Outbox
from headgate.transport.lean.refused_stream import RefusedStream
from headgate.transport.lean.request_head import MalformedHead, RequestHead, check_trailers
from headgate.transport.lean.stream import Stream
from headgate.transport.lean.stream_table import StreamTable

Methods = Mapping[str, OpenConversation]
"""What is served, by path."""


class Switchboard:
    """Opens the streams of one connection.

    Attributes:
        headers: the decoding side of the connection's header compression.
        is_closed: no new call is taken.
    """

    def __init__(
        self, methods: Methods, headers: HeaderReader, streams: StreamTable, deadlines: Deadlines, outbox: Outbox
    ) -> None:
        self._methods = methods
        self._streams = streams
        self._deadlines = deadlines
        self._outbox = outbox
        self.headers = headers
        self.is_closed = False

    def take_block(self, stream_id: int, block: bytes, *, is_end: bool, now: float) -> None:
        """A complete header block.

        Raises:
            ConnectionFault, StreamFault: it may not come now, or makes no sense.
        """
        if stream_id > self._streams.last_id:
            self._open(stream_id, block, is_end=is_end, now=now)
        else:
            self._take_trailers(stream_id, block, is_end=is_end)

    def _open(self, stream_id: int, block: bytes, *, is_end: bool, now: float) -> None:
        streams = self._streams
        streams.note_opened(stream_id)
        try:
            head = self.headers.read_head(block)
        except MalformedHead as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        if self.is_closed or len(streams.open) >= streams.limits.max_streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "no more streams")
        if head.http_status != 200:
            stream: Stream = RefusedStream(stream_id, head, streams, self._outbox, now)
            streams.open[stream_id] = stream
        else:
            stream = Stream(stream_id, head, streams, self._outbox, now)
            streams.open[stream_id] = stream
            self._begin(stream, head, now)
        if is_end and stream_id in streams.open:
            stream.half_close()

    def _begin(self, stream: Stream, head: RequestHead, now: float) -> None:
        open_conversation = self._methods.get(head.path)
        if open_conversation is None:
            stream.finish(StatusCode.UNIMPLEMENTED, f"there is no method {head.path}")
        elif not head.is_timeout_valid:
            stream.finish(StatusCode.INTERNAL, "a grpc-timeout that cannot be read")
        elif not is_known_encoding(head.encoding):
            stream.finish(StatusCode.UNIMPLEMENTED, f"messages in {head.encoding} cannot be read")
        else:
            if head.timeout_seconds is not None:
                self._deadlines.add(now + head.timeout_seconds, stream.id)
                self._deadlines.tidy(len(self._streams.open))
            stream.begin(open_conversation)

    def _take_trailers(self, stream_id: int, block: bytes, *, is_end: bool) -> None:
        headers = self.headers.read(block)
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._take_late_headers(stream_id)
            return
        if stream.is_half_closed:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "headers on a stream that is half-closed")
        if not is_end:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end their stream")
        try:
            check_trailers(headers)
        except MalformedHead as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        stream.half_close()

    def _take_late_headers(self, stream_id: int) -> None:
        if self._streams.was_skipped(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream with a number lower than the last")
        if not self._streams.was_reset_by_us(stream_id):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "headers on a stream that is closed")
