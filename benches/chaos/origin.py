"""An instance, and what it is told to do wrong.

    origin.py ADDRESS PORT STATE

STATE is a file of 24 bytes that outlives it: how many GETs and POSTs it has read, and what it does (a number of MODES), which whoever
runs it writes there. SIGTERM ends it as a server ends that is replaced: it takes no more connections, closes those that have
nothing to do, and answers what it has read.
"""

import asyncio
import mmap
import random
import signal
import socket
import struct
import sys

MODES = ["well", "slow", "cut", "errors", "refuse", "drip"]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 20\r\n\r\nall twenty are here."
ERROR = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nbroken"
SLOW_SECONDS = 2
# From one byte to the next.
DRIP_SECONDS = 0.05


class Origin:
    def __init__(self, address, port, state):
        self.address, self.port = address, port
        self.file = open(state, "r+b")
        self.state = mmap.mmap(self.file.fileno(), 24)
        self.server = None
        self.idle = set()
        self.writers = set()
        self.ends = False

    def mode(self):
        return MODES[self.state[16]]

    def count(self, is_post):
        at = 8 if is_post else 0
        (count,) = struct.unpack("<Q", self.state[at : at + 8])
        self.state[at : at + 8] = struct.pack("<Q", count + 1)

    async def listen(self):
        self.server = await asyncio.start_server(
            self.serve, self.address, self.port, backlog=1024, reuse_address=True
        )

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.end)
        await self.listen()
        while not (self.ends and not self.writers):
            refuses = self.mode() == "refuse" or self.ends
            if refuses and self.server:
                self.server.close()
                self.server = None
                if not self.ends:
                    for writer in list(self.writers):
                        reset(writer)
            elif not refuses and not self.server:
                await self.listen()
            await asyncio.sleep(0.02)

    def end(self):
        self.ends = True
        for writer in list(self.idle):
            writer.close()

    async def answer(self, writer):
        mode = self.mode()
        if mode == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if mode == "cut":
            writer.write(ANSWER[: random.randrange(len(ANSWER))])
            await writer.drain()
            if random.random() < 0.5:
                reset(writer)
            return False
        if mode == "drip":
            for byte in ANSWER:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
            return True
        writer.write(ERROR if mode == "errors" else ANSWER)
        await writer.drain()
        return True

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while not self.ends:
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                is_post = head.startswith(b"POST")
                if is_post:
                    await read_body(head, reader)
                if b" /load" not in head.split(b"\r\n", 1)[0]:
                    # A health check: it is answered as requests are, but by one that breaks off.
                    if self.mode() == "slow":
                        await asyncio.sleep(SLOW_SECONDS)
                    writer.write(ANSWER)
                    await writer.drain()
                    continue
                self.count(is_post)
                if not await self.answer(writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            self.idle.discard(writer)
            writer.close()


def reset(writer):
    """What is closed now is reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def read_body(head, reader):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
        elif line.startswith(b"transfer-encoding:"):
            while length := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(length + 2)
            await reader.readuntil(b"\r\n")


asyncio.run(Origin(sys.argv[1], int(sys.argv[2]), sys.argv[3]).run())
