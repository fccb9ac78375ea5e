"""PyPI `openmeter` and `datadog`, unchanged, from each line `go` of standard input to the next `stop`.

Arguments: the HTTP door's URL, the UDP door's host and port.

What the HTTP door did not acknowledge is sent again with the same ids. Prints "ready" after the first
batch, and after `stop` one JSON object: events acknowledged, batches sent again, events handed to UDP.
"""

import json
import queue
import sys
import threading
import time

from datadog.dogstatsd import DogStatsd
from openmeter import Client
from openmeter.models import Event

url, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
BATCH = 10
# Longer than any fault and the recovery from it.
BATCH_SECONDS_MAX = 180

running = threading.Event()
commands = queue.Queue()


def listen():
    for line in sys.stdin:
        (running.set if line == "go\n" else running.clear)()
        commands.put(line)
    running.clear()
    commands.put("")


threading.Thread(target=listen, daemon=True).start()
client = Client(endpoint=url, token="any", retry_total=0, connection_timeout=5, read_timeout=10)
statsd = DogStatsd(host=host, port=port, disable_buffering=True)
made = acknowledged = resent = sent = 0


def ingest(events):
    """Until it is acknowledged."""
    global resent
    give_up_at = time.monotonic() + BATCH_SECONDS_MAX
    while True:
        try:
            return client.events.ingest_events(events)
        except Exception:
            if time.monotonic() > give_up_at:
                raise
            resent += 1
            time.sleep(0.1)


def send():
    """One batch over HTTP, one event over UDP."""
    global made, acknowledged, sent
    events = []
    for _ in range(BATCH):
        made += 1
        events.append(
            Event(
                id=f"steady-{made}",
                source="library",
                specversion="1.0",
                type="api.calls",
                subject="openmeter",
                data={"value": 1.5},
            )
        )
    ingest(events)
    acknowledged += BATCH
    statsd.increment("api.calls", tags=["customer:datadog"])
    sent += 1
    time.sleep(0.02)


while commands.get() == "go\n":
    acknowledged = resent = sent = 0
    send()
    print("ready", flush=True)
    while running.is_set():
        send()
    # The word that ended it.
    commands.get()
    print(json.dumps({"acknowledged": acknowledged, "resent": resent, "sent": sent}), flush=True)
