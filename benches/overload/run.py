"""A service of fixed capacity behind a proxy: first at half of what it can do, then at OVERLOAD times as much.

    run.py PROXY_PORT SERVICE_PORT LOG -- COMMAND…    COMMAND starts the proxy; LOG takes what it says

Requests are sent at a fixed rate whatever becomes of those before. An answer that takes longer than PATIENCE is none: its client has left.
Prints, with tabs between: milliseconds that 99 per cent of the answers took at half of the capacity; and under overload the good answers
for each second, in per cent of the capacity, milliseconds that 50 and 99 per cent of these took, and the same 99 in those of before.
"""

import asyncio
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "chaos"))
import client  # noqa: E402
from instances import listens  # noqa: E402

WORKERS = 8
ANSWER_MILLISECONDS = 40
CAPACITY = WORKERS * 1000 / ANSWER_MILLISECONDS
OVERLOAD = float(os.environ.get("OVERLOAD", 3))
SECONDS = float(os.environ.get("LENGTH", 20))
# Whoever adapts has so long to do it.
SETTLE_SECONDS = float(os.environ.get("SETTLE", 10))
client.PATIENCE_SECONDS = float(os.environ.get("PATIENCE", 2))


async def load(clients, rate, settle, seconds):
    """What the good answers took that came in these seconds after others, in order."""
    asking, began = [], time.monotonic()
    for number in range(int(rate * (settle + seconds))):
        due = began + number / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        if due - began < settle:
            clients.took.clear()
        asking.append(asyncio.create_task(clients.ask("GET", due)))
    took = sorted(seconds for _, seconds, good in clients.took if good)
    await asyncio.gather(*asking)
    return took


def at(took, share):
    return took[min(len(took) * share // 100, len(took) - 1)] * 1000 if took else float("nan")


async def main(proxy, service, log, command):
    processes = []
    try:
        program = [sys.executable, os.path.join(HERE, "service.py")]
        processes.append(subprocess.Popen([*program, str(service), str(WORKERS), str(ANSWER_MILLISECONDS)]))
        with open(log, "wb") as said:
            processes.append(subprocess.Popen(command, stdout=said, stderr=said))
        deadline = time.monotonic() + 20
        while not (listens("127.0.0.1", proxy) and listens("127.0.0.1", service)):
            if time.monotonic() > deadline:
                sys.exit("something does not start")
            await asyncio.sleep(0.05)
        clients = client.Http1(proxy)
        usual = await load(clients, CAPACITY / 2, 2, SECONDS / 2)
        took = await load(clients, CAPACITY * OVERLOAD, SETTLE_SECONDS, SECONDS)
    finally:
        for process in processes:
            # In order: nginx's workers would stay otherwise.
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    goodput = len(took) / SECONDS / CAPACITY * 100
    times = at(took, 99) / at(usual, 99)
    print(f"{at(usual, 99):.0f}\t{goodput:.0f}\t{at(took, 50):.0f}\t{at(took, 99):.0f}\t{times:.1f}")


separator = sys.argv.index("--")
arguments = sys.argv[1:separator]
asyncio.run(main(int(arguments[0]), int(arguments[1]), arguments[2], sys.argv[separator + 1 :]))
