"""PyPI `cloudevents`, unchanged, in structured mode. Argument: the door's URL."""

import sys

import requests
from cloudevents.conversion import to_structured
from cloudevents.http import CloudEvent

for number in range(25):
    event = CloudEvent(
        {"type": "api.calls", "source": "cloudevents-python", "subject": "cloudevents-python"},
        {"value": number, "region": "us"},
    )
    headers, body = to_structured(event)
    for _ in range(2):
        # The second is a retry: the same event.
        answer = requests.post(f"{sys.argv[1]}/api/v1/events", data=body, headers=headers, timeout=10)
        assert answer.status_code == 204, (answer.status_code, answer.text)
