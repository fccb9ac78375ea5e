"""PyPI `statsd`, unchanged: it sends no tags, so the customer is in the name. Argument: UDP port."""

import sys

from statsd import StatsClient

port = int(sys.argv[1])
client = StatsClient("127.0.0.1", port, prefix="tenant.statsd")
for _ in range(100):
    client.incr("api.calls", 3)
client.gauge("storage.gib", 7)
client.timing("latency.ms", 25)
with client.pipeline() as pipe:
    for _ in range(50):
        pipe.incr("api.calls")
