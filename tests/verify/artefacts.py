"""Makes artefacts as an honest operator would: ledgers at random, their archives, certificates and invoices' proofs.

From the documents alone, by another way than verify.py: rates with decimals, rows one after the other, the tree level by level.

scenarios.py puts documents over it and writes all of it into a folder.
"""
import hashlib, hmac, json, random, struct, subprocess
from datetime import datetime, timedelta, timezone
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, setcontext
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

setcontext(Context(prec=120))
OCTOBER = ("2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00")
NOVEMBER = ("2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00")
SEPTEMBER = ("2026-09-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00")
BERLIN_SUMMER_ENDS = 1792890000 // 900
ROUNDING = {"half_up": ROUND_HALF_UP, "half_even": ROUND_HALF_EVEN}
NAMES = ["acme", "zoë & søn", "globex", "initech", "日本商事", 'quo"te\\d', "umbrella", "stark"]
METERS = {"api.calls": "sum", "seats": "max", "floor": "min", "load": "average", "disk": "latest", "hits": "count",
          "users": "unique_count", "payments": "sum", "tokens": "sum", "credits": "sum"}


def text(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def quarter(instant):
    return int(datetime.fromisoformat(instant).timestamp()) // 900


def instant(bucket):
    zone = timezone(timedelta(hours=2 if bucket < BERLIN_SUMMER_ENDS else 1))
    return datetime.fromtimestamp(bucket * 900, zone).isoformat()


def plain(value):
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def compressed(data):
    try:
        from zstandard import compress
        return compress(data, 1)
    except ImportError:
        return subprocess.run(["zstd", "-1cq"], input=data, stdout=subprocess.PIPE, check=True).stdout


class Key:
    """A signing key of 32 bytes."""

    def __init__(self, seed):
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.hex = self.private.public_key().public_bytes_raw().hex()

    def sign(self, *parts):
        return self.private.sign(b"".join(parts)).hex()


class Ledger:
    """Usage of several customers in batches of several streams, corrections, and a certificate of it all."""

    def __init__(self, seed, customers=5, buckets=60):
        self.random = random.Random(seed)
        self.key = Key(sha(b"a key for tests alone"))
        self.id = self.random.randbytes(16)
        self.salt = self.random.randbytes(32)
        self.customers = NAMES[:customers]
        self.from_day = quarter(OCTOBER[0]) // 96 - 20
        self.lines = [line for customer in self.customers[:-1] for line in self.usage(customer, buckets)]
        self.batches = self.sealed()
        self.corrections = [each for customer in self.customers[:-1] for each in self.corrected(customer)]
        self.entries = len(self.corrections) + 7
        self.tree()
        self.certify()

    # --- What was metered

    def usage(self, customer, buckets):
        """Lines: (customer, meter, dimensions, bucket, counts, sum, min, max, latest, uniques, class)."""
        draw = self.random
        for _ in range(buckets):
            meter = draw.choice(list(METERS))
            dimensions = {"tokens": {"model": draw.choice(["large", "small", "tiny"]), "region": "eu"},
                          "api.calls": {"model": draw.choice(["large", "other"])}}.get(meter, {})
            bucket = draw.randrange(quarter(OCTOBER[0]) - 96 * 3, quarter(NOVEMBER[0]))
            for _ in range(draw.choice([1, 1, 2])):
                events = draw.randint(1, 40)
                valued = 0 if meter in ("hits", "users") else draw.randint(1, events)
                values = [draw.randint(-10**9 if meter == "credits" else 1, 50 * 10**9) for _ in range(valued)]
                named = draw.randint(1, events) if meter == "users" else 0
                uniques = sorted({draw.randrange(60).to_bytes(16, "big") for _ in range(named)})
                latest = (bucket * 900_000 + draw.randrange(900_000), draw.choice(values)) if values else (0, 0)
                unauthorised = draw.random() < 0.06
                yield (customer, meter, tuple(sorted(dimensions.items())), bucket, (events, valued, named), sum(values),
                       min(values, default=0), max(values, default=0), latest, uniques, "unauthorised" if unauthorised else "normal")

    def corrected(self, customer):
        """Some corrections of what a customer used, or of what it did not."""
        mine = [line for line in self.lines if line[0] == customer and line[10] == "normal"]
        for number, line in enumerate(self.random.sample(mine, min(9, len(mine)))):
            _, meter, dimensions, bucket, counts, total, low, _, _, _, _ = line
            kinds = {"sum": ["add", "take"], "count": ["add", "take"], "unique_count": []}.get(METERS[meter], ["add", "replace"])
            for kind in kinds[:self.random.choice([1, 2])] if number % 2 else kinds[1:]:
                events = 1 if METERS[meter] not in ("sum", "count") else counts[0] // 2 + 1 if kind == "take" else 3
                value = min(total, low) if kind == "take" else self.random.randint(1, 9 * 10**9)
                is_valued = meter != "hits"
                yield (customer, len(self.batches) + 2 + number * 3 + len(kind), kind, meter, dimensions, bucket, events,
                       min(events, counts[1]) if kind == "take" else events * is_valued, value * is_valued)

    def sealed(self):
        """Batches of three streams: (stream, header, stored body, marks, is quarantined), in the order of admission."""
        sealed, lines = [], self.lines[:]
        self.random.shuffle(lines)
        self.streams = {self.random.randbytes(16): [0, 0, b"", 0] for _ in range(3)}
        quiet = self.random.randbytes(16)
        for stream in self.streams:
            self.streams[stream][2] = sha(b"tidemark/genesis/1", self.id, stream)
        while lines:
            count = self.random.randint(1, 30)
            stream = self.random.choice(list(self.streams))
            sealed.append(self.batch(stream, lines[:count], self.random.random() < 0.5))
            del lines[:count]
            if self.random.random() < 0.1:
                sealed.append(self.batch(stream, [], False, quarantined=self.random.randint(1, 9)))
        self.streams[quiet] = [0, 0, sha(b"tidemark/genesis/1", self.id, quiet), 0]
        return sealed

    def batch(self, stream, lines, compress, quarantined=0):
        state = self.streams[stream]
        def string(value, length=2):
            data = value.encode()
            return len(data).to_bytes(length, "big") + data
        written = []
        for customer, meter, dimensions, bucket, counts, total, low, high, latest, uniques, category in lines:
            key = string(meter) + string(customer) + bytes([len(dimensions)])
            key += b"".join(string(name) + string(value) for name, value in dimensions) + struct.pack(">I", bucket)
            value = struct.pack(">QQQ", *counts) + b"".join(each.to_bytes(16, "big", signed=True) for each in (total, low, high))
            value += struct.pack(">q", latest[0]) + latest[1].to_bytes(16, "big", signed=True)
            written.append([key, 0, value + struct.pack(">HI", 1, len(uniques)) + b"".join(uniques), category, bucket])
        written.sort(key=lambda line: (line[0], line[1]))
        for before, line in zip(written, written[1:]):
            line[1] = before[1] + 1 if line[0] == before[0] else 0
        salt, leaves = self.random.randbytes(32), []
        body = salt + struct.pack(">H", 1) + struct.pack(">HQ", 3, state[0])
        marks = bytearray(len(written) // 8 + 1)
        for index, (key, part, value, category, _) in enumerate(written):
            line = key + struct.pack(">H", part) + value
            body += struct.pack(">I", len(line)) + line
            number = struct.pack(">I", index)
            leaves.append(sha(b"\0", hmac.digest(salt, b"tidemark/salt/1" + number, "sha256")[:16], number, line))
            if category != "normal":
                marks[index // 8] |= 1 << index % 8
        stored = compressed(body) if compress else body
        events = sum(line[4][0] for line in lines) + quarantined
        buckets = [line[4] for line in written] or [0]
        header = struct.pack(">4sHH16s16sQQQIIIHHIIQ32s32s32s", b"TMBH", 1, 1, stream, b"o" * 16, state[0] + 1, state[1], state[1] + events,
                             min(buckets), max(buckets), len(written), 1 if compress else 0, 0, len(stored), len(body), 3, state[2],
                             sha(b"tidemark/body/1", stored), mth(leaves))
        state[:] = [state[0] + 1, state[1] + events, sha(b"tidemark/batch/1", header), state[3] + quarantined]
        return stream, header, stored, bytes(marks).rstrip(b"\0"), bool(quarantined)

    # --- The certificate

    def tree(self):
        """Texts by customer and day, and the tree's nodes by depth and prefix."""
        rows = {}
        for customer, meter, dimensions, bucket, counts, total, low, high, latest, uniques, category in self.lines:
            if bucket // 96 < self.from_day:
                continue
            row = rows.setdefault((customer, bucket // 96), {}).setdefault((meter, dimensions, category, bucket), [0, 0, 0, 0, None, None, None, set()])
            for index in range(3):
                row[index] += counts[index]
            row[3] += total
            if counts[1]:
                row[4] = low if row[4] is None else min(row[4], low)
                row[5] = high if row[5] is None else max(row[5], high)
                row[6] = latest if row[6] is None else max(row[6], latest)
            row[7] |= {"0001" + unique.hex() for unique in uniques}
        self.rows, self.texts = rows, {}
        for (customer, day), of_day in rows.items():
            for (meter, dimensions, category, bucket), row in of_day.items():
                low, high, latest = (None, None, None) if row[4] is None else (str(row[4]), str(row[5]), [row[6][0], str(row[6][1])])
                self.texts.setdefault(customer, {}).setdefault(day, []).append(text(
                    ["row", meter, list(map(list, dimensions)), category, bucket, *row[:3], str(row[3]), low, high, latest, sorted(row[7])]))
        for customer, entry, kind, meter, dimensions, bucket, events, valued, value in self.corrections:
            self.texts.setdefault(customer, {}).setdefault(bucket // 96, []).append(text(
                ["correction", entry, kind, meter, list(map(list, dimensions)), bucket, events, valued, str(value)]))
        level = {}
        for customer, days in self.texts.items():
            position = self.position(customer)
            content = sha(b"tidemark/customer/1", len(customer.encode()).to_bytes(2, "big"), customer.encode(), struct.pack(">I", len(days)),
                          *(struct.pack(">I", day) + self.day(customer, day) for day in sorted(days)))
            level[position] = sha(b"\0", position.to_bytes(6, "big"), content)
        self.levels = [level]
        for depth in range(48, 0, -1):
            bit, above = 1 << 48 - depth, {}
            for prefix in level:
                left = prefix & ~bit
                above[left] = sha(b"\1", self.node(level, depth, left), self.node(level, depth, left | bit))
            level = above
            self.levels.append(level)

    def day(self, customer, day):
        texts = self.texts[customer][day]
        texts.sort(key=str.encode)
        return sha(b"tidemark/day/1", struct.pack(">II", day, len(texts)), *(struct.pack(">I", len(t.encode())) + t.encode() for t in texts))

    def position(self, customer):
        return int.from_bytes(hmac.digest(self.salt, b"tidemark/position/1" + customer.encode(), "sha256")[:6], "big")

    def node(self, level, depth, prefix):
        return level.get(prefix) or hmac.digest(self.salt, b"tidemark/empty/1" + bytes([depth]) + prefix.to_bytes(6, "big"), "sha256")

    def path(self, customer):
        position, siblings = self.position(customer), []
        for up, level in enumerate(self.levels[:48]):
            prefix = position >> up << up
            siblings.append(self.node(level, 48 - up, prefix ^ 1 << up).hex())
        return {"position": f"{position:012x}", "siblings": siblings}

    def certify(self):
        meters = {}
        for of_day in self.rows.values():
            for (meter, _, category, _), row in of_day.items():
                total = meters.setdefault((meter, category), [0, 0, 0])
                total[0], total[1], total[2] = total[0] + 1, total[1] + row[0], total[2] + row[3]
        end, quarantined = (sum(state[index] for state in self.streams.values()) for index in (1, 3))
        statement = text({
            "format": "tidemark statement 1", "salt": self.salt.hex(),
            "usage": {"customers": len(self.texts), "days": sum(map(len, self.texts.values())), "rows": sum(m[0] for m in meters.values()),
                      "corrections": len(self.corrections), "meters": [
                          {"meter": meter, "class": category, "rows": found[0], "events": found[1], "sum": str(found[2])}
                          for (meter, category), found in sorted(meters.items())]},
            "streams": {"listed": len(self.streams), "open": len(self.streams), "closed": 0, "lost": 0, "conflict": 0, "accepted": end + 5,
                        "posted": end - quarantined, "quarantined": quarantined, "in_transit": 5},
            "evidence": {"no_customer": 3}, "duplicates": 2, "findings": [], "waivers": [], "policies": []})
        self.stream_texts = [text([stream.hex(), "agent-1", "open", min(state[0], 1), state[0], state[2].hex(), state[1], state[1], state[3]])
                             for stream, state in sorted(self.streams.items())]
        self.as_of = quarter(NOVEMBER[0]) * 900_000 + 3_723_004
        self.head = text({
            "format": "tidemark certificate 1", "ledger": self.id.hex(), "number": 3, "previous": "ab" * 32, "at": quarter(NOVEMBER[0]) * 900_000,
            "as_of": self.as_of, "complete_through": self.as_of - 2_000, "from_day": self.from_day, "batches": len(self.batches),
            "entries": self.entries + 50, "entries_digest": "cd" * 32, "usage_root": self.levels[48][0].hex(),
            "streams_root": mth([sha(b"\0", line.encode()) for line in self.stream_texts]).hex(),
            "statement_sha256": sha(statement.encode()).hex(), "key": self.key.hex})
        self.digest = sha(self.head.encode()).hex()
        self.signature = self.key.sign(b"tidemark/certificate/1", self.head.encode())
        self.certificate = text({"head": self.head, "signature": self.signature, "statement": statement}) + "\n"

    def keys(self):
        """As they are published: one that was before, and that which signs."""
        before = Key(sha(b"a key for tests before it"))
        return {"ledger": self.id.hex(), "keys": [
            {"key": before.hex, "from": 0, "until": 1_700_000_000_000, "signature": None},
            {"key": self.key.hex, "from": 1_700_000_000_000, "until": None,
             "signature": before.sign(b"tidemark/key/1", self.id, bytes.fromhex(self.key.hex))}]}

    def archive(self, folder):
        """Two segments of batches, one of which says some again, and one of books."""
        def put(row):
            customer, entry, kind, meter, dimensions, bucket, events, valued, value = row
            key = b"k" + len(customer.encode()).to_bytes(2, "big") + customer.encode() + struct.pack(">IQ", bucket, entry)
            of = {"kind": kind, "meter": meter} | ({"dimensions": dict(dimensions)} if dimensions else {}) | {
                "bucket": bucket, "events": events, "quantity_events": valued, "sum": plain(Decimal(value) / 10**9)}
            return b"\7" + sized(key) + b"\1" + sized(text(of).encode())
        def sized(data):
            return struct.pack(">I", len(data)) + data
        def record(position):
            stream, header, stored, marks, quarantined = self.batches[position]
            return sized(struct.pack(">Q", position) + b"\0\7agent-1" + sized(marks) + bytes([quarantined]) + b"\0\0" + sized(b"") + header + stored)
        half = len(self.batches) // 2
        def counted(first, last):
            spans = [struct.unpack_from(">QQ", self.batches[at][1], 48) for at in range(first, last)]
            return {"count": last - first, "first": first, "last": last - 1, "events": sum(end - start for start, end in spans)}
        books = {"count": len(self.corrections), "first": 0, "last": max(len(self.corrections) - 1, 0), "events": 0}
        counts = [{"count": 1, "first": 0, "last": 0, "events": 0}, counted(0, half), books, counted(max(half - 2, 0), len(self.batches))]
        objects = [("ledger", b"{}", "json"), ("batches", b"TMAS\0\1\2\0" + b"".join(map(record, range(half))), "seg"),
                   ("books", b"TMAS\0\1\3\0" + b"".join(sized(struct.pack(">Q", n) + put(row)) for n, row in enumerate(self.corrections)), "seg.zst"),
                   ("batches", b"TMAS\0\1\2\0" + b"".join(map(record, range(max(half - 2, 0), len(self.batches)))), "seg")]
        previous = "0" * 64
        (folder / "manifests").mkdir(parents=True)
        for number, (kind, data, suffix) in enumerate(objects, 1):
            if suffix == "seg.zst":
                data = compressed(data)
            name = f"{kind}/{number:012}-{sha(data).hex()[:16]}.{suffix}"
            (folder / kind).mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            manifest = text({"format": 1, "number": number, "previous": previous, "ledger": self.id.hex(), "incarnation": 1,
                             "ledger_time_limit": 0, "kind": kind, "object": name, "bytes": len(data), "sha256": sha(data).hex(),
                             **counts[number - 1], "entries": 0}).encode() + b"\n"
            (folder / "manifests" / f"{number:012}.json").write_bytes(manifest)
            previous = sha(manifest).hex()


def mth(leaves):
    """The tree of RFC 6962."""
    if not leaves:
        return sha(b"")
    level = leaves
    while len(level) > 1:
        level = [sha(b"\1", *level[at:at + 2]) if at + 1 < len(level) else level[at] for at in range(0, len(level), 2)]
    return level[0]
