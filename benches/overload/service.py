"""A service of fixed capacity: so many requests are worked on at a time, and the others wait in line, whoever still wants their answer.

    service.py PORT WORKERS MILLISECONDS    what one takes, on average; single ones from half of it to one and a half
"""

import asyncio
import random
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 20\r\n\r\nall twenty are here."
port, workers, milliseconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


async def main():
    places = asyncio.Semaphore(workers)

    async def work():
        async with places:
            await asyncio.sleep(milliseconds / 1000 * (0.5 + random.random()))

    async def serve(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                # What has begun is done, as by most services.
                await asyncio.shield(asyncio.create_task(work()))
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


asyncio.run(main())
