"""Steady load through a proxy while its three instances fail in turn, each for three seconds with a pause of three.

    run.py FAULT PROXY_PORT DIRECTORY ORIGIN_PORT ORIGIN_PORT ORIGIN_PORT

FAULT is kill (kill -9, and a new process afterwards), stop (SIGSTOP and SIGCONT), slow (answers take two seconds), cut (answers
break off or are reset at any byte of head or body) or mix (each of the first three in turn). Requests are sent at a fixed RATE
whatever becomes of those before, and timed from when they were due. Prints, with tabs between: requests, failed ones,
milliseconds that 50, 99 and 100 per cent took, and attempts at instances for each request.
"""

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time

RATE = float(os.environ.get("RATE", 200))
ROUNDS = int(os.environ.get("ROUNDS", 6))
FAULT_SECONDS = 3
PAUSE_SECONDS = 3
PATIENCE_SECONDS = 30
REQUEST = b"GET /load HTTP/1.1\r\nhost: chaos.example\r\n\r\n"


SIGNALS = {
    "stop": (signal.SIGSTOP, signal.SIGCONT),
    "slow": (signal.SIGUSR1, signal.SIGUSR1),
    "cut": (signal.SIGUSR2, signal.SIGUSR2),
}


class Instance:
    def __init__(self, port, directory):
        self.port = port
        self.counter = os.path.join(directory, f"count-{port}")
        with open(self.counter, "wb") as counter:
            counter.write(bytes(8))
        self.process = None

    def start(self):
        origin = os.path.join(os.path.dirname(__file__), "origin.py")
        self.process = subprocess.Popen([sys.executable, origin, str(self.port), self.counter])

    def count(self):
        with open(self.counter, "rb") as counter:
            return struct.unpack("<Q", counter.read(8))[0]

    def signal(self, number):
        self.process.send_signal(number)

    def fail(self, fault):
        if fault == "kill":
            self.process.kill()
            self.process.wait()
        else:
            self.signal(SIGNALS[fault][0])

    def recover(self, fault):
        if fault == "kill":
            self.start()
        else:
            self.signal(SIGNALS[fault][1])


async def reachable(port):
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


class Clients:
    """Connections to the proxy, kept while they are good."""

    def __init__(self, port):
        self.port = port
        self.idle = []
        self.took = []
        self.failed = 0

    async def ask(self, due):
        try:
            good = await asyncio.wait_for(self.exchange(), PATIENCE_SECONDS)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError):
            good = False
        self.took.append(time.monotonic() - due)
        self.failed += not good

    async def exchange(self):
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split(b" ", 2)[1])
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


async def disturb(instances, fault):
    kinds = ["kill", "stop", "slow"] if fault == "mix" else [fault]
    for number in range(ROUNDS):
        await asyncio.sleep(PAUSE_SECONDS)
        # In another order than the kinds, so that each instance gets each.
        instance, kind = instances[(number + number // 3) % 3], kinds[number % len(kinds)]
        instance.fail(kind)
        await asyncio.sleep(FAULT_SECONDS)
        instance.recover(kind)
    await asyncio.sleep(PAUSE_SECONDS)


async def main(fault, proxy, directory, ports):
    instances = [Instance(port, directory) for port in ports]
    try:
        for instance in instances:
            instance.start()
        for port in [*ports, proxy]:
            await reachable(port)
        # The proxy's checks, if it makes any, have seen the instances by then.
        await asyncio.sleep(3)
        clients = Clients(proxy)
        disturbing = asyncio.create_task(disturb(instances, fault))
        asking, number, began = set(), 0, time.monotonic()
        while not disturbing.done():
            due = began + number / RATE
            number += 1
            await asyncio.sleep(max(0, due - time.monotonic()))
            task = asyncio.create_task(clients.ask(due))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
        attempts = sum(instance.count() for instance in instances)
    finally:
        for instance in instances:
            if instance.process:
                instance.process.kill()
    took = sorted(clients.took)
    at = lambda share: took[min(len(took) * share // 1000, len(took) - 1)] * 1000
    shares = "\t".join(f"{at(share):.0f}" for share in (500, 990, 1000))
    print(f"{number}\t{clients.failed}\t{shares}\t{attempts / number:.3f}")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], [int(port) for port in sys.argv[4:7]]))
