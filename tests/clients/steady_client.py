"""PyPI `openmeter` and `datadog`, unchanged, for as long as standard input is open.

Arguments: the HTTP door's URL, the UDP door's host and port, a name for the ids.

What the HTTP door did not acknowledge is sent again with the same ids. Prints "ready" after the
first batch; in the end one JSON object: events acknowledged, batches sent again, events handed to UDP.
"""

import json
import sys
import threading
import time

from datadog.dogstatsd import DogStatsd
from openmeter import Client
from openmeter.models import Event

url, host, port, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
BATCH = 10
# Longer than any fault and the recovery from it.
BATCH_SECONDS_MAX = 180

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
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


while not stop.is_set():
    events = []
    for _ in range(BATCH):
        made += 1
        events.append(
            Event(
                id=f"{name}-{made}",
                source=f"library-{name}",
                specversion="1.0",
                type="api.calls",
                subject="openmeter",
                data={"value": 1.5},
            )
        )
    ingest(events)
    if acknowledged == 0:
        print("ready", flush=True)
    acknowledged += BATCH
    statsd.increment("api.calls", tags=["customer:datadog"])
    sent += 1
    time.sleep(0.02)

print(json.dumps({"acknowledged": acknowledged, "resent": resent, "sent": sent}))
