// npm `@openmeter/sdk`, unchanged, against the HTTP door: it sends batches, and makes its own ids.
// Argument: the door's URL. Since Node 17 `localhost` means ::1 first.
import { OpenMeter } from '@openmeter/sdk';

const client = new OpenMeter({ baseUrl: process.argv[2], apiKey: 'any' });

const event = (number) => ({
  id: `event-${number}`,
  type: 'api.calls',
  subject: 'openmeter-node',
  data: { value: 2, region: 'eu' },
});

await client.events.ingest(event(0));
const many = Array.from({ length: 39 }, (_, index) => event(index + 1));
await client.events.ingest(many);
// A retry, with the ids of before.
await client.events.ingest(many);
// Without an id the client makes one.
await client.events.ingest({ type: 'api.calls', subject: 'openmeter-node', data: { value: '0.5' } });
