"""Steady load through a proxy while its three instances fail in turn, each for three seconds with a pause of three.

    run.py FAULT PROXY_PORT DIRECTORY INSTANCE_PORT [REGISTRY REGISTRY_PORT] -- COMMAND…    COMMAND starts the proxy

FAULT is kill (kill -9, and a new process afterwards), stop (SIGSTOP and SIGCONT), slow (answers take two seconds), cut (answers
break off or are reset at any byte of head or body), errors (500 at once), refuse (connections are reset and refused), drip (answers
come byte by byte), mix (each of these in turn), two (two of three at once: killed, stopped, with errors), roll (all three are
replaced, one after the other, as a deployment does it) or registry: what names the instances is stopped or killed while an instance is,
and instances come and go.

Requests are sent at a fixed RATE whatever becomes of those before, and timed from when they were due; METHODS says which: GET, POST,
or mix, where three of ten are POSTs; CLIENT whether in h1 or h2. Prints, with tabs between: requests, GETs and POSTs that failed,
milliseconds that 50, 99, 99.9 and 100 per cent took, and attempts at instances for each request.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time

from client import Http1, Http2
from instances import Instance, Registry, listens

RATE = float(os.environ.get("RATE", 200))
ROUNDS = int(os.environ.get("ROUNDS", 6))
METHODS = os.environ.get("METHODS", "GET")
CLIENT = os.environ.get("CLIENT", "h1")
FAULT_SECONDS = float(os.environ.get("FAULT_SECONDS", 3))
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", 3))
MIXED = ["kill", "stop", "slow", "errors", "refuse", "drip", "cut"]
# From one replacement to the next, and from when the registry was told to when the process goes.
SETTLE_SECONDS = 1


async def until(what, seconds=20):
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            sys.exit("something does not start")
        await asyncio.sleep(0.05)


class Scene:
    def __init__(self, fault, directory, port, registry):
        self.fault = fault
        self.instances = [Instance(number, port, directory) for number in range(4)]
        self.registry = registry

    async def begin(self):
        for instance in self.instances[:3]:
            instance.start()
        if self.registry:
            # The one for DNS reads names from the beginning.
            if self.registry.kind == "dns":
                self.registry.set(self.instances[:3])
            self.registry.start()
            self.registry.wait()
            self.registry.set(self.instances[:3])
        for instance in self.instances[:3]:
            await until(lambda: listens(instance.address, instance.port))

    def end(self):
        for instance in self.instances:
            instance.kill()
        if self.registry:
            self.registry.kill()

    async def disturb(self):
        for number in range(ROUNDS):
            await asyncio.sleep(PAUSE_SECONDS)
            # In another order than the kinds, so that each instance gets each.
            turn = (number + number // 3) % 3
            if self.fault == "roll":
                await self.roll()
            elif self.fault == "registry":
                await self.unsettle(number, self.instances[turn])
            elif self.fault == "two":
                kind = ["kill", "stop", "errors"][number % 3]
                await self.fail([self.instances[turn], self.instances[(turn + 1) % 3]], kind)
            else:
                kind = MIXED[number % len(MIXED)] if self.fault == "mix" else self.fault
                await self.fail([self.instances[turn]], kind)
        await asyncio.sleep(PAUSE_SECONDS)

    async def fail(self, instances, kind):
        for instance in instances:
            instance.fail(kind)
        await asyncio.sleep(FAULT_SECONDS)
        for instance in instances:
            instance.recover(kind)

    async def roll(self):
        for instance in self.instances[:3]:
            await asyncio.to_thread(instance.end)
            await asyncio.sleep(SETTLE_SECONDS / 2)
            instance.start()
            await asyncio.sleep(SETTLE_SECONDS)

    async def unsettle(self, number, instance):
        spare = self.instances[3]
        others = [other for other in self.instances[:3] if other is not instance]
        registry = self.registry
        if number % 4 == 0:
            registry.signal(signal.SIGSTOP)
            await self.fail([instance], "kill")
            registry.signal(signal.SIGCONT)
        elif number % 4 == 1:
            registry.kill()
            await self.fail([instance], "stop")
            registry.start()
            await asyncio.to_thread(registry.wait)
        else:
            if number % 4 == 3:
                registry.signal(signal.SIGSTOP)
                instance.kill()
                await asyncio.sleep(FAULT_SECONDS / 2)
                registry.signal(signal.SIGCONT)
            spare.start()
            await until(lambda: listens(spare.address, spare.port))
            await asyncio.to_thread(registry.set, [*others, spare])
            await asyncio.sleep(FAULT_SECONDS)
            if instance.process:
                await asyncio.to_thread(instance.end)
            instance.start()
            await until(lambda: listens(instance.address, instance.port))
            await asyncio.to_thread(registry.set, [*others, instance])
            await asyncio.sleep(FAULT_SECONDS)
            await asyncio.to_thread(spare.end)


def method(number):
    if METHODS == "mix":
        return "POST" if number % 10 in (2, 5, 8) else "GET"
    return METHODS


async def load(clients, scene):
    disturbing = asyncio.create_task(scene.disturb())
    asking, number, began = set(), 0, time.monotonic()
    while not disturbing.done():
        due = began + number / RATE
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(clients.ask(method(number), due))
        number += 1
        asking.add(task)
        task.add_done_callback(asking.discard)
    await asyncio.gather(*asking)
    disturbing.result()
    return number


async def main(arguments, command):
    fault, proxy, directory, port = arguments[0], int(arguments[1]), arguments[2], int(arguments[3])
    registry = Registry(arguments[4], int(arguments[5]), directory) if arguments[4:] else None
    scene = Scene(fault, directory, port, registry)
    process = None
    try:
        await scene.begin()
        with open(os.path.join(directory, "log"), "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        await until(lambda: listens("127.0.0.1", proxy))
        # The proxy's checks, if it makes any, have seen the instances by then.
        await asyncio.sleep(3)
        clients = Http2(proxy) if CLIENT == "h2" else Http1(proxy)
        number = await load(clients, scene)
        attempts = sum(sum(instance.counts()) for instance in scene.instances)
    finally:
        if process:
            process.terminate()
            process.wait()
        scene.end()
    took = sorted(seconds for _, seconds, _ in clients.took)
    at = lambda share: took[min(len(took) * share // 1000, len(took) - 1)] * 1000
    shares = "\t".join(f"{at(share):.0f}" for share in (500, 990, 999, 1000))
    gets, posts = (sum(1 for one, _, good in clients.took if one == kind and not good) for kind in ("GET", "POST"))
    print(f"{number}\t{gets}\t{posts}\t{shares}\t{attempts / number:.3f}")


separator = sys.argv.index("--")
asyncio.run(main(sys.argv[1:separator], sys.argv[separator + 1 :]))
