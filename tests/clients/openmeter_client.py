"""PyPI `openmeter` (beta), unchanged, against the HTTP door. Argument: the door's URL."""

import datetime
import sys

from openmeter import Client
from openmeter.models import Event

client = Client(endpoint=sys.argv[1], token="any")


def event(number):
    return Event(
        id=f"event-{number}",
        source="openmeter-python",
        specversion="1.0",
        type="api.calls",
        subject="openmeter-python",
        time=datetime.datetime.now(datetime.timezone.utc),
        data={"value": 1.5, "region": "eu"},
    )


client.events.ingest_event(event(0))
client.events.ingest_events([event(number) for number in range(1, 40)])
# A retry, with the ids of before.
client.events.ingest_events([event(number) for number in range(1, 40)])
