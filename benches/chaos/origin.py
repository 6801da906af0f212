"""An instance: answers every request at once, or two seconds later while it is told to be slow (SIGUSR1 switches).

    origin.py PORT COUNTER    the requests that it has read are counted in the file COUNTER, which outlives it
"""

import asyncio
import mmap
import signal
import struct
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 20\r\n\r\nall twenty are here."
SLOW_SECONDS = 2


class Origin:
    def __init__(self, counter):
        self.file = open(counter, "r+b")
        self.counter = mmap.mmap(self.file.fileno(), 8)
        self.is_slow = False

    def switch(self):
        self.is_slow = not self.is_slow

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /load"):
                    (count,) = struct.unpack("<Q", self.counter[:8])
                    self.counter[:8] = struct.pack("<Q", count + 1)
                    if self.is_slow:
                        await asyncio.sleep(SLOW_SECONDS)
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main(port, counter):
    origin = Origin(counter)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, origin.switch)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
