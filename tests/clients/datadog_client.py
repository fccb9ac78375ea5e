"""PyPI `datadog`, unchanged: UDP, then the Unix datagram socket. Arguments: UDP port, socket."""

import sys

from datadog.dogstatsd import DogStatsd

port, socket = int(sys.argv[1]), sys.argv[2]


def send(client, customer):
    tags = [f"customer:{customer}", "region:eu"]
    for _ in range(300):
        client.increment("api.calls", 2, tags=tags)
    # Of two in the same millisecond the larger is the latest.
    client.gauge("storage.gib", 11, tags=tags)
    client.gauge("storage.gib", 12.5, tags=tags)
    client.histogram("latency.ms", 10, tags=tags)
    client.distribution("latency.ms", 30, tags=tags)
    client.set("users.active", "ann", tags=tags)
    client.set("users.active", "bob", tags=tags)
    client.flush()


send(DogStatsd(host="127.0.0.1", port=port), "datadog-udp")
# Without a timeout this client throws away what does not fit the kernel's queue of ten datagrams;
# with one it waits for the agent, which is what the socket is for.
send(DogStatsd(socket_path=socket, socket_timeout=5), "datadog-unix")
