"""Clients of a proxy: requests over connections that are kept while they are good, in HTTP/1.1 or HTTP/2."""

import asyncio
import time

PATIENCE_SECONDS = 30
BODY = b"a body that is sent with each POST"


class Clients:
    def __init__(self, port):
        self.port = port
        # For each request its method, seconds, and whether it was answered well.
        self.took = []

    async def ask(self, method, due):
        try:
            good = await asyncio.wait_for(self.exchange(method), PATIENCE_SECONDS)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError, EOFError):
            good = False
        self.took.append((method, time.monotonic() - due, good))


class Http1(Clients):
    def __init__(self, port):
        super().__init__(port)
        self.idle = []

    async def exchange(self, method):
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        request = f"{method} /load HTTP/1.1\r\nhost: chaos.example\r\n".encode()
        if method == "POST":
            request += b"content-length: %d\r\n\r\n" % len(BODY) + BODY
        else:
            request += b"\r\n"
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(b" ", 2)[1])
            if b"transfer-encoding: chunked" in head:
                while length := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(length + 2)
                await reader.readuntil(b"\r\n")
            else:
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(length)
        except StopIteration:
            # No length: an error page that ends with its connection.
            writer.close()
            return False
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self.idle.append((reader, writer))
        return status == 200


CONNECTIONS = 4


class Http2(Clients):
    """A few connections that all requests share."""

    def __init__(self, port):
        super().__init__(port)
        self.connections = [None] * CONNECTIONS
        self.opening = asyncio.Lock()
        self.next = 0

    async def exchange(self, method):
        self.next = (self.next + 1) % CONNECTIONS
        at = self.next
        async with self.opening:
            if self.connections[at] is None or not self.connections[at].is_open:
                self.connections[at] = await Connection.open(self.port)
        return await self.connections[at].exchange(method)


class Connection:
    @classmethod
    async def open(cls, port):
        import h2.config
        import h2.connection

        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.is_open = True
        # What is awaited of each stream, with its status and the bytes that came.
        self.streams = {}
        self.state.initiate_connection()
        self.flush()
        self.task = asyncio.create_task(self.read())
        return self

    def flush(self):
        self.writer.write(self.state.data_to_send())

    async def exchange(self, method):
        stream = self.state.get_next_available_stream_id()
        fields = [(":method", method), (":path", "/load"), (":scheme", "http"), (":authority", "chaos.example")]
        if method == "POST":
            fields.append(("content-length", str(len(BODY))))
        self.state.send_headers(stream, fields, end_stream=method != "POST")
        if method == "POST":
            self.state.send_data(stream, BODY, end_stream=True)
        answered = asyncio.get_running_loop().create_future()
        self.streams[stream] = [answered, 0, 0]
        self.flush()
        return await answered

    async def read(self):
        import h2.events
        import h2.exceptions

        try:
            while data := await self.reader.read(65536):
                for event in self.state.receive_data(data):
                    stream = self.streams.get(getattr(event, "stream_id", None))
                    if isinstance(event, h2.events.ConnectionTerminated):
                        self.is_open = False
                    elif isinstance(event, h2.events.DataReceived):
                        self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        if stream:
                            stream[2] += len(event.data)
                    elif stream and isinstance(event, h2.events.ResponseReceived):
                        stream[1] = int(dict(event.headers)[b":status" if isinstance(event.headers[0][0], bytes) else ":status"])
                    elif stream and isinstance(event, h2.events.StreamEnded):
                        self.end(event.stream_id, stream[1] == 200 and stream[2] == 20)
                    elif stream and isinstance(event, h2.events.StreamReset):
                        self.end(event.stream_id, False)
                self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        self.is_open = False
        self.writer.close()
        for stream in list(self.streams):
            self.end(stream, False)

    def end(self, stream, good):
        answered, _, _ = self.streams.pop(stream)
        if not answered.done():
            answered.set_result(good)
