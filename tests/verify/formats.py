"""Texts, numbers, digests, signatures and heads, as deploy/docs/proofs.md has them: usage, and what it comes to."""
import hashlib, json, re
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NANO, DAY = 10**9, 96
# Places of minor units by ISO 4217, where they are not 2.
PLACES = dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0) | dict.fromkeys(
    "BHD IQD JOD KWD LYD OMR TND".split(), 3) | {"CLF": 4, "UYW": 4}

class Refused(Exception):
    """What does not hold, and where."""

# What reading something of another type, size or form ends in, besides.
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

def need(holds, place, what):
    if not holds:
        raise Refused(f"{place}: {what}")

def read(text, place):
    """JSON that is written as the rules say. A float, or a key that stands twice, is another text when written again."""
    value = json.loads(text, parse_float=str, parse_constant=str)
    need(write(value) == text, place, "its JSON is not written by the rules")
    return value

def write(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

def form(value, names, place):
    """Asks for these keys in this order; with a `?` one that may be absent."""
    names = [name.rstrip("?") for name in names.split() if name[-1] != "?" or name[:-1] in value]
    need(list(value) == names, place, f"its keys are not {' '.join(names)}")
    return value

def item(items, index, place):
    need(type(index) is int and 0 <= index < len(items), place, f"there is no {index!r}")
    return items[index]

def ascending(values, place):
    need(all(a < b for a, b in zip(values, values[1:])), place, "not ascending, or one stands twice")

def unhex(text, length, place):
    need(re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text), place, f"not {length} bytes in hex")
    return bytes.fromhex(text)

def units(text, place):
    need(re.fullmatch("0|-?[1-9][0-9]*", text), place, f"{text!r} is nothing that can be rated")
    return int(text)

def decimal(text, place):
    need(re.fullmatch(r"-?[0-9]+(\.[0-9]{1,12})?", text), place, f"{text!r} is no decimal")
    return Fraction(text)

def amount_text(minor, places):
    """As documents have it, with all places of the currency."""
    digits = f"{abs(minor):0{places + 1}}"
    return "-" * (minor < 0) + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)

def quantity_text(quantity):
    """As documents have it, with no more digits than it needs."""
    return amount_text(int(quantity * NANO), 9).rstrip("0").rstrip(".")

def rounded(value, rounding):
    """To a whole number. `round` takes the half of a fraction to the even neighbour."""
    half_up = int(abs(value) + Fraction(1, 2)) * (1 if value > 0 else -1)
    return {"half_up": half_up, "half_even": round(value)}[rounding]

def milliseconds(text, place):
    """Of an instant in RFC 3339."""
    need(re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", text), place, f"{text!r} is no instant")
    return (datetime.fromisoformat(text) - datetime.fromtimestamp(0, timezone.utc)) // timedelta(milliseconds=1)

def bucket_of(text, place):
    """Of an instant; of none, none."""
    since = text and milliseconds(text, place)
    need(not since or since % 900_000 == 0, place, f"{text} is not on a quarter of an hour")
    return since and since // 900_000

def H(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def u(value, length=4):
    return value.to_bytes(length, "big")

def string(text):
    return u(len(text.encode()), 2) + text.encode()

def signed(key, message, signature, place):
    try:
        Ed25519PublicKey.from_public_bytes(unhex(key, 32, place)).verify(unhex(signature, 64, place), message)
    except InvalidSignature:
        raise Refused(f"{place}: the signature is not of these bytes and the key {key}") from None

def day_digest(day, texts):
    return H(b"tidemark/day/1", u(day), u(len(texts)), *(u(len(text.encode())) + text.encode() for text in texts))

def leaf_digest(position, customer, days):
    digests = [u(day) + digest for day, digest in days]
    return H(b"\0", position, H(b"tidemark/customer/1", string(customer), u(len(days)), *digests))

def read_head(text, signature):
    head = form(read(text, "head"), "format ledger number previous at as_of complete_through from_day batches entries entries_digest "
                "usage_root streams_root statement_sha256 key", "head")
    need(head["format"] == "tidemark certificate 1", "head", "another format")
    need(min(head[name] for name in ("number", "from_day", "batches", "entries")) >= 0, "head", "a number below 0")
    for name in ("previous", "entries_digest", "usage_root", "streams_root", "statement_sha256"):
        unhex(head[name], 32, f"head.{name}")
    need((head["number"] == 1) == (head["previous"] == "0" * 64), "head.previous", "not of its number")
    signed(head["key"], b"tidemark/certificate/1" + text.encode(), signature, "head")
    return head

def compare_keys(file, head, used):
    """Says which keys signed; with a file of published keys they must be among these, each signed by the one before."""
    if not file:
        return [f"signed by {key}; it was not compared with published keys" for key in sorted(used)]
    published = form(json.loads(Path(file).read_bytes()), "ledger keys", file)
    chain = [entry["key"] for entry in published["keys"]]
    need(published["ledger"] == head["ledger"], file, "keys of another ledger")
    for before, entry in zip(chain, published["keys"][1:]):
        if entry["signature"] is None:  # the one before was lost: trust in it is that in the list
            continue
        signed(before, b"tidemark/key/1" + bytes.fromhex(head["ledger"] + entry["key"]), entry["signature"], file)
    need(used <= set(chain), file, f"signed by a key that is not published: {', '.join(sorted(used - set(chain)))}")
    return [f"signed by {key}, which is published" for key in sorted(used)]

# --- Usage: the texts of the tree, and what they come to

class Usage:
    """One text: a row of a key, or a correction of it."""
    def __init__(self, text, day, place):
        self.kind, *rest = read(text, place)
        if self.kind == "row":
            self.meter, dims, self.category, self.bucket, self.events, self.valued, _, self.total, low, high, latest, uniques = rest
            self.entry = 0
        else:
            self.entry, self.kind, self.meter, dims, self.bucket, self.events, self.valued, self.total = rest
            need(self.kind in ("add", "take", "replace"), place, "neither a row nor a correction")
            self.category, low, high, latest, uniques = "normal", self.total, self.total, [self.bucket * 900_000, self.total], []
        if self.valued:
            self.low, self.high, self.latest = units(low, place), units(high, place), (latest[0], units(latest[1], place))
        ascending([name.encode() for name, _ in dims], place)
        ascending([unhex(unique, 18, place) for unique in uniques], place)
        need(self.bucket // DAY == day, place, "of another day")
        self.dimensions, self.uniques, self.key = dict(dims), uniques, (self.meter, write(dims), self.category, self.bucket)

def aggregate(usages, aggregation, place):
    """Quantity and number of events of all these together."""
    kept = {}
    for usage in sorted(usages, key=lambda usage: usage.entry):
        before = [] if usage.kind == "replace" else kept.get(usage.key, [])
        kept[usage.key] = [*before, (-1 if usage.kind == "take" else 1, usage)]
    kept = [pair for pairs in kept.values() for pair in pairs]
    events, valued = sum(n * usage.events for n, usage in kept), sum(n * usage.valued for n, usage in kept)
    total, given = sum(n * units(usage.total, place) for n, usage in kept), [usage for n, usage in kept if n > 0 and usage.valued]
    quantity = {"sum": total, "count": events * NANO, "average": round(Fraction(total, valued)) if valued else 0,
                "min": min((usage.low for usage in given), default=0), "max": max((usage.high for usage in given), default=0),
                "latest": max((usage.latest for usage in given), default=(0, 0))[1],
                "unique_count": len({unique for _, usage in kept for unique in usage.uniques}) * NANO}[aggregation]
    return Fraction(quantity, NANO), events

def included_usage(file, head):
    """The customer's days, each with its usage, or `None` where it is given as a digest. They come to `usage_root`."""
    days, digests = [], []
    ascending([day for day, _ in file["days"]], "days")
    for day, texts in file["days"]:
        place, usages = f"day {day}", None
        need(day >= head["from_day"] and texts, place, "not in the certificate")
        if type(texts) is list:
            usages = [Usage(text, day, f"{place}, text {index}") for index, text in enumerate(texts)]
            ascending([text.encode() for text in texts], place)
            ascending(sorted(usage.key for usage in usages if usage.kind == "row"), place)
        days.append((day, usages))
        digests.append((day, day_digest(day, texts) if usages else unhex(texts, 32, place)))
    need((file["path"] is None) == (not days), "path", "it is there without usage, or usage without it")
    if days:
        path = form(file["path"], "position siblings", "path")
        need(len(path["siblings"]) == 48, "path.siblings", "not 48")
        digest = leaf_digest(unhex(path["position"], 6, "path.position"), file["customer"], digests)
        for depth, sibling in enumerate(path["siblings"]):
            pair = [digest, unhex(sibling, 32, "path.siblings")]
            digest = H(b"\1", *(reversed(pair) if int(path["position"], 16) >> depth & 1 else pair))
        need(digest.hex() == head["usage_root"], "path", "the usage does not come to the certificate's `usage_root`")
    return days
