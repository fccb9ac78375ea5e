"""Sends one call as a DogStatsD datagram and one order as an acknowledged event, again and again.

A datagram is not answered; what is lost before the agent is measured there, not sent again. An order must not
be lost: it has an id, and is sent again, with the same id, until the agent has said that it is on disk.
"""

import json
import os
import signal
import socket
import sys
import time
import uuid

CUSTOMER = os.environ["CUSTOMER"]
METER = os.environ["METER"]
INTERVAL = float(os.environ["INTERVAL_SECONDS"])
STATSD = os.environ.get("TIDEMARK_STATSD_HOST"), int(os.environ.get("TIDEMARK_STATSD_PORT", "0"))
EVENTS = os.environ.get("TIDEMARK_EVENTS_SOCKET")


def durable(door, line):
    """Sends one line, and returns once the agent has it on disk."""
    while True:
        try:
            if door is None:
                door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                door.settimeout(10)
                door.connect(EVENTS)
            door.sendall(line)
            answer = json.loads(door.makefile().readline() or "null")
            if answer is None:
                raise ConnectionError("the agent has closed the door")
            if "rejected" in answer:
                print(f"rejected: {answer}", flush=True)
            return door
        except (OSError, ValueError) as error:
            print(f"again in 1 s: {error}", flush=True)
            if door is not None:
                door.close()
            door = None
            time.sleep(1)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door, sent = None, 0
    while True:
        if STATSD[0]:
            udp.sendto(f"{METER}:1|c|#customer:{CUSTOMER},door:udp".encode(), STATSD)
        if EVENTS:
            event = {"meter": METER, "customer": CUSTOMER, "quantity": 1, "id": str(uuid.uuid4())}
            event["dimensions"] = {"door": "events"}
            door = durable(door, json.dumps(event).encode() + b"\n")
        sent += 1
        if sent & (sent - 1) == 0:
            print(f"sent {sent} times", flush=True)
        time.sleep(INTERVAL)


main()
