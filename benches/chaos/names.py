"""A name server that knows one name: what stands for the registry where proxies that know no other are to use it.

    names.py ADDRESS PORT FILE    FILE: the IPv4 addresses of any name, one a line, read for every question
"""

import socket
import struct
import sys

address, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, port))
while True:
    question, client = server.recvfrom(4096)
    if len(question) < 17:
        continue
    end = 12
    while question[end]:
        end += question[end] + 1
    (kind,) = struct.unpack(">H", question[end + 1 : end + 3])
    addresses = open(path).read().split() if kind == 1 else []
    head = question[:2] + struct.pack(">HHHHH", 0x8580, 1, len(addresses), 0 if addresses else 1, 0)
    records = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(one) for one in addresses
    )
    if not addresses:
        # There is nothing of that kind (RFC 2308).
        soa = b"\x00\x00" + struct.pack(">IIIII", 1, 1, 1, 1, 1)
        records = b"\xc0\x0c" + struct.pack(">HHIH", 6, 1, 1, len(soa)) + soa
    server.sendto(head + question[12 : end + 5] + records, client)
