"""A client that behaves: a request every 20 ms, on a new connection every second time. Usage: client.py PORT SECONDS

Prints how many requests it sent, how many failed and how long the slowest took; its exit code is 1 when any failed.
"""

import http.client
import sys
import time

port, seconds = int(sys.argv[1]), float(sys.argv[2])
end = time.monotonic() + seconds
sent, failed, slowest, connection = 0, 0, 0.0, None
while time.monotonic() < end or sent == 0:
    began = time.monotonic()
    try:
        if connection is None or sent % 2 == 0:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/small")
        answer = connection.getresponse()
        if (answer.status, answer.read()) != (200, b"ok"):
            failed += 1
    except (OSError, http.client.HTTPException):
        failed, connection = failed + 1, None
    slowest = max(slowest, time.monotonic() - began)
    sent += 1
    time.sleep(0.02)
print(f"{sent} | {failed} | {slowest * 1000:.0f} ms", end="")
sys.exit(1 if failed else 0)
