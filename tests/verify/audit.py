"""An auditor's check of a certificate: all usage and every digest chain are computed again from archived batches.

Formats: deploy/docs/proofs.md, archive.md, formats.md. `verify.py --batches DIR certificate.json` calls it.
"""
import hashlib, hmac, json, struct, subprocess
from pathlib import Path
from formats import DAY, H, NANO, Refused, compare_keys, day_digest, decimal, form, leaf_digest, need, read, read_head, u, unhex, write

def decompressed(data):
    """One Zstandard frame, by whatever there is for it."""
    def by_command(data):
        return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout
    try:
        from compression.zstd import decompress
    except ImportError:
        try:
            from zstandard import ZstdDecompressor
            decompress = ZstdDecompressor().decompressobj().decompress
        except ImportError:
            decompress = by_command
    try:
        return decompress(data)
    except OSError:
        raise
    except Exception as error:
        raise Refused(f"archive: what is compressed cannot be read: {error}") from None

class Bytes:
    """Takes fields from the front of some bytes."""
    def __init__(self, data):
        self.data, self.at = data, 0
    def take(self, length):
        need(self.at + length <= len(self.data), "archive", "it is cut short")
        self.at += length
        return self.data[self.at - length:self.at]
    def number(self, length, signed=False):
        return int.from_bytes(self.take(length), "big", signed=signed)
    def bytes(self, length):
        return self.take(self.number(length))
    def rest(self):
        return self.at < len(self.data)

def segments(folder, kind, ledger):
    """The records of all objects of a kind. The chain of manifests and each object's digest hold."""
    previous = "0" * 64
    for number, file in enumerate(sorted(Path(folder, "manifests").glob("[0-9]*.json")), 1):
        data = file.read_bytes()
        manifest = json.loads(data)
        continues = (manifest["number"], manifest["previous"], manifest["ledger"]) == (number, previous, ledger)
        need(continues, file, "it does not continue the chain of manifests, or is another ledger's")
        previous, stored = hashlib.sha256(data).hexdigest(), Path(folder, manifest["object"])
        # Auditors may be given no books: of a ledger without corrections they say nothing here.
        if manifest["kind"] != kind or kind == "books" and not stored.exists():
            continue
        need(stored.is_file(), stored, "it is missing")
        data = stored.read_bytes()
        need(hashlib.sha256(data).hexdigest() == manifest["sha256"], stored, "its digest is not that of its manifest")
        segment = Bytes(decompressed(data) if stored.suffix == ".zst" else data)
        need(segment.take(6) == b"TMAS\0\1", stored, "no segment of this version")
        segment.take(2)
        while segment.rest():
            yield Bytes(segment.bytes(4))

def merkle(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else H()
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return H(b"\1", merkle(leaves[:left]), merkle(leaves[left:]))

def usage_root(leaves, salt, depth=0, prefix=0):
    """Of leaves by position."""
    if not leaves:
        return hmac.digest(salt, b"tidemark/empty/1" + u(depth, 1) + u(prefix, 6), "sha256")
    if depth == 48:
        return leaves.popitem()[1]
    bit = 1 << 47 - depth
    sides = [{at: leaf for at, leaf in leaves.items() if bool(at & bit) == side} for side in (False, True)]
    return H(b"\1", *(usage_root(side, salt, depth + 1, prefix | bit * right) for right, side in enumerate(sides)))

class Stream:
    """What the batches of a stream come to, one behind the other."""
    def __init__(self, ledger, stream):
        self.last, self.end, self.quarantined, self.digest = 0, 0, 0, H(b"tidemark/genesis/1", ledger, stream)

def read_batch(record, streams, ledger, rows, from_day):
    """Checks a batch and adds its lines to the rows of their customers and days."""
    record.bytes(2)
    marks, is_quarantined = int.from_bytes(record.bytes(4), "little"), record.number(1)
    _, judged, again = record.bytes(2), Bytes(record.bytes(4)), Bytes(b"")
    if judged.rest():
        need(judged.number(1) == 1, "archive", "what was judged of a batch is not known to this verifier")
        again = Bytes(judged.bytes(4))
        need(not judged.rest(), "archive", "what was judged of a batch is not known to this verifier")
    suppressed = {again.number(4): again.take(28) for _ in range(len(again.data) // 32)}
    header, stored = record.take(192), record.data[record.at:]
    (magic, version, body_version, name, _, sequence, first, end, first_bucket, last_bucket, lines, codec, zero, stored_length,
     raw_length, _, previous, body_digest, lines_root) = struct.unpack(">4sHH16s16sQQQIIIHHIIQ32s32s32s", header)
    place, stream = f"stream {name.hex()}, batch {sequence}", streams.setdefault(name, Stream(ledger, name))
    need((magic, version, zero, stored_length) == (b"TMBH", 1, 0, len(stored)) and codec < 2, place, "its header cannot be read")
    need(sequence == stream.last + 1 and previous == stream.digest and first == stream.end <= end, place, "it is not the next one of the chain")
    stream.last, stream.end, stream.digest = sequence, end, H(b"tidemark/batch/1", header)
    if is_quarantined:
        stream.quarantined += end - first
        return
    need(body_version in (1, 2) and H(b"tidemark/body/1", stored) == body_digest, place, "its body was changed")
    body = Bytes(decompressed(stored) if codec else stored)
    need(len(body.data) == raw_length, place, "its raw length is another")
    salt, _ = body.take(32), [body.take(10) for _ in range(body.number(2))]
    extras = [(body.number(2), body.bytes(4)) for _ in range(body.number(2) if body_version == 2 else 0)]
    need(all(one[0] < other[0] for one, other in zip(extras, extras[1:])), place, "its extras are out of order")
    leaves, before, events, buckets = [], b"", 0, []
    for index in range(lines):
        line = Bytes(body.bytes(4))
        leaves.append(H(b"\0", hmac.digest(salt, b"tidemark/salt/1" + u(index), "sha256")[:16], u(index), line.data))
        meter, customer = line.bytes(2).decode(), line.bytes(2).decode()
        dimensions = [[line.bytes(2).decode(), line.bytes(2).decode()] for _ in range(line.number(1))]
        bucket, _ = line.number(4), line.number(2)
        key, before = before, line.data[:line.at]
        need(key < before, place, f"line {index} is out of order")
        counts, values = [line.number(8) for _ in range(3)], [line.number(16, signed=True) for _ in range(3)]
        latest, id_ = [line.number(8, signed=True), line.number(16, signed=True)], line.take(2)
        uniques = {(id_ + line.take(16)).hex() for _ in range(line.number(4))}
        need(not line.rest(), place, f"bytes follow line {index}")
        events += counts[0]
        buckets.append(bucket)
        if bucket // DAY >= from_day:
            of_day = rows.setdefault(customer, {}).setdefault(bucket // DAY, {})
            category = "unauthorised" if marks >> index & 1 else "suppressed" if index in suppressed else "normal"
            row = of_day.setdefault((meter, write(dimensions), category, bucket), [[0, 0, 0], 0, [], set()])
            row[0], row[1] = [a + b for a, b in zip(row[0], counts)], row[1] + values[0]
            row[2].append((values[1], values[2], latest)) if counts[1] else None
            row[3].update(uniques)
    need(not body.rest() and merkle(leaves) == lines_root, place, "its lines were changed")
    need((events, min(buckets, default=0), max(buckets, default=0)) == (end - first, first_bucket, last_bucket), place, "its header counts others")

def row_text(key, row):
    (meter, dimensions, category, bucket), (counts, total, valued, uniques) = key, row
    text = str(total) if -2**127 <= total < 2**127 else "x" + total.to_bytes(32, "big", signed=True).hex()
    low, high, latest = (str(min(low for low, _, _ in valued)), str(max(high for _, high, _ in valued)),
                         max(latest for _, _, latest in valued)) if valued else (None, None, None)
    return write(["row", meter, json.loads(dimensions), category, bucket, *counts, text, low, high,
                  latest and [latest[0], str(latest[1])], sorted(uniques)])

def corrections(folder, head):
    """(customer, day, text) of each that the certificate counts."""
    rows = {}
    for record in segments(folder, "books", head["ledger"]):
        record.take(8)
        while record.rest():
            table, key, is_put = record.number(1), record.bytes(4), record.number(1)
            value = record.bytes(4) if is_put else None
            if table == 7 and key[:1] == b"k":
                rows[key] = value
    for key, value in rows.items():
        field = Bytes(key[1:])
        customer, bucket, entry, row = field.bytes(2).decode(), field.number(4), field.number(8), json.loads(value)
        if entry <= head["entries"] and bucket // DAY >= head["from_day"]:
            total = int(decimal(row["sum"], "books") * NANO)
            yield customer, bucket // DAY, write(["correction", entry, row["kind"], row["meter"], sorted(map(list, row.get("dimensions", {}).items())),
                                                  bucket, row["events"], row["quantity_events"], str(total)])

def check_streams(file, streams, head):
    """The streams' texts continue what their batches say, and come to the root."""
    texts = [text for text in Path(file).read_bytes().decode().split("\n") if text] if file else []
    for text in texts:
        name, _, state, first, last, digest, end, _, quarantined = read(text, file)
        stream = streams.get(bytes.fromhex(name), Stream(bytes.fromhex(head["ledger"]), bytes.fromhex(name)))
        need(state in ("open", "closed", "lost", "conflict"), name, "no state")
        found = (min(stream.last, 1), stream.last, stream.digest.hex(), stream.end, stream.quarantined)
        need((first, last, digest, end, quarantined) == found, f"stream {name}", f"its batches come to {found}")
    root = merkle([H(b"\0", text.encode()) for text in texts])
    need(not file or root.hex() == head["streams_root"], "streams_root", "the streams' texts do not come to it")
    return texts

def verify_certificate(data, folder, streams_file=None, keys_file=None):
    certificate = form(read(data.decode().removesuffix("\n"), "file"), "head signature statement", "file")
    need(data.endswith(b"\n"), "file", "it is cut short")
    head = read_head(certificate["head"], certificate["signature"])
    need(H(certificate["statement"].encode()).hex() == head["statement_sha256"], "statement", "it is not the certificate's")
    statement = form(read(certificate["statement"], "statement"), "format salt usage streams evidence duplicates "
                     "findings waivers policies", "statement")
    need(statement["format"] == "tidemark statement 1", "statement", "another format")
    salt, ledger, rows, streams, batches = unhex(statement["salt"], 32, "statement.salt"), bytes.fromhex(head["ledger"]), {}, {}, {}
    for record in segments(folder, "batches", head["ledger"]):
        position = record.number(8)
        if position < head["batches"]:
            need(batches.setdefault(position, record).data == record.data, folder, f"batch {position} is there twice, with other bytes")
    need(len(batches) == head["batches"], folder, f"it holds {len(batches)} of the {head['batches']} batches that the certificate counts")
    for _, record in sorted(batches.items()):
        read_batch(record, streams, ledger, rows, head["from_day"])
    texts = {customer: {day: [row_text(key, row) for key, row in of_day.items()] for day, of_day in days.items()}
             for customer, days in rows.items()}
    corrected = 0
    for corrected, (customer, day, text) in enumerate(corrections(folder, head), 1):
        texts.setdefault(customer, {}).setdefault(day, []).append(text)
    leaves = {}
    for customer, days in texts.items():
        position = hmac.digest(salt, b"tidemark/position/1" + customer.encode(), "sha256")[:6]
        digests = [(day, day_digest(day, sorted(of_day, key=str.encode))) for day, of_day in sorted(days.items())]
        need(int.from_bytes(position, "big") not in leaves, "salt", "two customers have one position")
        leaves[int.from_bytes(position, "big")] = leaf_digest(position, customer, digests)
    check_statement(statement, rows, texts, corrected, streams)
    need(usage_root(leaves, salt).hex() == head["usage_root"], "usage_root", "the batches' usage does not come to it")
    listed = check_streams(streams_file, streams, head)
    need(not streams_file or len(listed) == statement["streams"]["listed"], "statement.streams.listed", "not as many")
    notes = [] if streams_file else ["the streams' texts were not given: their root was not compared"]
    return [*compare_keys(keys_file, head, {head["key"]}), *notes,
            f"certificate {head['number']} of {head['batches']} batches and {len(texts)} customers: all holds"]

def check_statement(statement, rows, texts, corrected, streams):
    meters = {}
    for days in rows.values():
        for of_day in days.values():
            for (meter, _, category, _), (counts, total, _, _) in of_day.items():
                found = meters.setdefault((meter, category), [0, 0, 0])
                found[:] = [found[0] + 1, found[1] + counts[0], found[2] + total]
    wanted = {"customers": len(texts), "days": sum(map(len, texts.values())), "rows": sum(count for count, _, _ in meters.values()),
              "corrections": corrected, "meters": [
                  {"meter": meter, "class": category, "rows": count, "events": events, "sum": str(total)}
                  for (meter, category), (count, events, total) in sorted(meters.items())]}
    need(statement["usage"] == wanted, "statement.usage", f"by the batches it is {write(wanted)}")
    said, quarantined = form(statement["streams"], "listed open closed lost conflict accepted posted quarantined in_transit", "statement.streams"), sum(stream.quarantined for stream in streams.values())
    posted = sum(stream.end for stream in streams.values()) - quarantined
    need((said["posted"], said["quarantined"]) == (posted, quarantined), "statement.streams", f"by the batches {posted} and {quarantined}")
    need(said["accepted"] == said["posted"] + said["quarantined"] + said["in_transit"], "statement.streams.accepted", "not what it comes to")
