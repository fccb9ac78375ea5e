// npm `hot-shots`, unchanged, over UDP: buffered, so that datagrams hold several metrics, and not.
// Argument: UDP port.
'use strict';

const StatsD = require('hot-shots');

const port = Number(process.argv[2]);

function send(customer, options) {
  return new Promise((resolve, reject) => {
    const client = new StatsD({
      host: 'localhost',
      port,
      globalTags: { customer },
      errorHandler: reject,
      ...options,
    });
    for (let sent = 0; sent < 500; sent += 1) {
      client.increment('api.calls', 1, { region: 'eu' });
    }
    client.gauge('storage.gib', 3.25);
    client.timing('latency.ms', 40);
    client.set('users.active', 'ann');
    client.set('users.active', 'ann');
    client.close((error) => (error ? reject(error) : resolve()));
  });
}

async function main() {
  await send('hot-shots-buffered', { maxBufferSize: 1400 });
  await send('hot-shots', {});
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
