"""An instance: answers every request at once; two seconds later while it is told to be slow (SIGUSR1 switches); only a part, in head or
body, while it is told to break off (SIGUSR2 switches).

    origin.py PORT COUNTER    the requests that it has read are counted in the file COUNTER, which outlives it
"""

import asyncio
import mmap
import random
import signal
import socket
import struct
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 20\r\n\r\nall twenty are here."
SLOW_SECONDS = 2


class Origin:
    def __init__(self, counter):
        self.file = open(counter, "r+b")
        self.counter = mmap.mmap(self.file.fileno(), 8)
        self.is_slow = False
        self.cuts = False

    def switch_slow(self):
        self.is_slow = not self.is_slow

    def switch_cuts(self):
        self.cuts = not self.cuts

    async def cut(self, writer):
        writer.write(ANSWER[: random.randrange(len(ANSWER))])
        await writer.drain()
        if random.random() < 0.5:
            # What is closed now is reset.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /load"):
                    (count,) = struct.unpack("<Q", self.counter[:8])
                    self.counter[:8] = struct.pack("<Q", count + 1)
                    if self.is_slow:
                        await asyncio.sleep(SLOW_SECONDS)
                    if self.cuts:
                        await self.cut(writer)
                        return
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main(port, counter):
    origin = Origin(counter)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, origin.switch_slow)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, origin.switch_cuts)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
