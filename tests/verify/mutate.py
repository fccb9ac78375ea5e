"""Changes artefacts at random, and sees that verify.py refuses every change.

    mutate.py [--seed N] [--changes N] [--keys FILE] [--key FILE] [--batches DIR [--streams FILE]] FILE...

FILEs are proofs of invoices, and certificates (these with --batches). Three kinds, N changes of each, spread over the files:
`byte`: one byte is another; `field`: one value anywhere, also within texts, is another, is gone, stands twice or is exchanged with its neighbour;
`re-signed`, with --key (32 bytes, or PKCS#8 in DER): such a field, and all signatures and digests made anew, as a dishonest operator could.
A re-signed change may be accepted where the formats say that nothing proves the field (UNPROVED); these are counted by themselves.
Exit code 0: each was refused or is of these. 1: some were accepted, and are printed. 2: a file was refused before any change.
"""
import argparse, json, random, re, sys
from collections import Counter
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

import audit, formats, verify

UNPROVED = [re.compile(pattern) for pattern in (
    r"document/(number|date|due_date|issued_at|period_end|notes|seller)\b.*", r"document/customer(/(name|address|tax_id)\b.*)?",
    r"document/taxes/\d+/label", r"document/sections/\d+/lines/\d+/(details|rated/unit)",
    # A document may name no certificate; its cut is the certificate's where it does.
    r"document/cut(/certificate)?",
    # Other documents are the proof.
    r"document/sections/\d+/lines/\d+/rated/term/(from|to|due|charged)",
    # What is compared with the contract.
    r"(plans|subscriptions)/\d+/(interval|tax|effective|start|end|trial_end|commitment_term)",
    # The operator's own words about the ledger, which no batch tells; another first day without usage between it and the right one.
    r"head/(number|previous|at|as_of|complete_through|entries|entries_digest|from_day)", r"statement/(evidence|findings|waivers|policies)\b.*",
    r"statement/duplicates", r"statement/streams/(open|closed|lost|conflict|accepted|in_transit)")]


def is_unproved(path, tree, notes):
    """Whether nothing proves it, or it comes to nothing: of a tax of 0 the percentage, of a section that shows some lines the other prices."""
    is_noted = any("before the certificate's" in note or "not computed" in note for note in notes)
    if is_noted and re.fullmatch(r"document/sections/[0-9]+/lines/[0-9]+/(rated/events|invoiced_before)", path):
        return True
    if path.endswith("/description"):
        _, _, section, _, line, _ = path.split("/")
        return tree["document"].value["sections"][int(section)]["lines"][int(line)].get("details") == "no longer charged"
    if any(pattern.fullmatch(path) for pattern in UNPROVED):
        return True
    document = tree["document"].value if "document" in tree else {"sections": [], "taxes": []}
    step = path.split("/")
    if step[0] in ("plans", "subscriptions") and len(step) > 2:
        return any(section["kind"] != "period" for section in document["sections"])
    is_of_tax = step[:2] == ["document", "taxes"] and step[-1] in ("percent", "inclusive")
    # A tax service said it, or it comes to nothing.
    return is_of_tax and (tree["tax_rounding"] is None or Decimal(document["taxes"][int(step[2])]["tax"]) == 0)


class Text:
    """JSON within a string."""

    def __init__(self, text):
        self.value = json.loads(text)


class Toml:
    """TOML within a string, as what stands between its quoted values, and these."""

    def __init__(self, text):
        self.pieces = re.split(r'(^\w+ = |"(?:[^"\\]|\\.)*")', text, flags=re.MULTILINE)


def opened(file):
    """The file with the texts in it opened."""
    file = json.loads(file)
    if "statement" in file:
        return file | {"head": Text(file["head"]), "statement": Text(file["statement"])}
    days = [[day, [Text(text) for text in texts] if isinstance(texts, list) else texts] for day, texts in file["days"]]
    certificate = {"head": Text(file["certificate"]["head"]), "signature": file["certificate"]["signature"]}
    return file | {"document": Text(file["document"]), "certificate": certificate, "days": days} | {
        name: [Toml(text) for text in file[name]] for name in ("plans", "subscriptions")}


def closed(value):
    if isinstance(value, Text):
        return formats.write(closed(value.value))
    if isinstance(value, Toml):
        return "".join(value.pieces)
    if isinstance(value, dict):
        return {name: closed(each) for name, each in value.items()}
    return [closed(each) for each in value] if isinstance(value, list) else value


def places(value, path=""):
    """Where there is a value: (container, key, path)."""
    if isinstance(value, Text):
        yield from places(value.value, path)
    elif isinstance(value, Toml):
        name = ""
        for index, piece in enumerate(value.pieces):
            name = piece.split()[0] if re.fullmatch(r"\w+ = ", piece) else name
            if piece[:1] == '"':
                yield value.pieces, index, f"{path}/{name}"
    elif isinstance(value, (dict, list)):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            below = f"{path}/{name}".removeprefix("/certificate").removeprefix("/")
            yield value, name, below
            yield from places(each, below)


def changed(draw, value):
    """Another value of its kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + draw.choice([1, -1, 10, 96, -96, value + 1])
    if value is None:
        return draw.choice([0, "", False, "half_up"])
    if isinstance(value, list):
        return value + [draw.choice([0, "", [0, [0]], [[]]])]
    if isinstance(value, dict):
        return value | {"another": 1}
    if not value:
        return "x"
    while True:
        at = draw.randrange(len(value))
        kind = next(each for each in ("0123456789", "abcdef", "ghijklmnopqrstuvwxyz", value[at] + "ABC .-é") if value[at] in each)
        other = value[:at] + draw.choice(kind) + value[at + 1:]
        try:
            is_another = Decimal(other) != Decimal(value)
        except InvalidOperation:
            is_another = other != value
        if is_another:
            return other


def change_field(draw, tree):
    """Changes one, of any of the file's keys as likely; answers with its path, and what was done."""
    found = {}
    for place in places(tree):
        found.setdefault(place[2].split("/")[0], []).append(place)
    container, name, path = draw.choice(found[draw.choice(list(found))])
    value, done = container[name], "is another"
    act = draw.choice(["is another"] * 6 + ["is gone", "stands twice", "is exchanged with the next"])
    if isinstance(value, (Text, Toml)):
        return change_field(draw, tree)
    if isinstance(container, list) and act != done and not isinstance(tree, Toml) and "plans" not in path and "subscriptions" not in path:
        if act == "is gone":
            del container[name]
        elif act == "stands twice":
            container.insert(name, value)
        elif name + 1 < len(container) and closed(container[name + 1]) != closed(value):
            container[name], container[name + 1] = container[name + 1], value
        else:
            return change_field(draw, tree)
        return path, act
    if isinstance(container, dict) and act == "is gone":
        del container[name]
        return path, act
    if isinstance(value, str) and value[:1] == '"' and "/" in path and path.split("/")[0] in ("plans", "subscriptions"):
        container[name] = f'"{changed(draw, value[1:-1])}"'
    else:
        container[name] = changed(draw, value)
    return path, done


def signed(tree, key):
    """The file's bytes, with every digest and signature that an operator with the key can make."""
    if "statement" in tree:
        if "statement_sha256" in tree["head"].value:
            tree["head"].value["statement_sha256"] = sha256(closed(tree["statement"]).encode()).hexdigest()
        file = closed(tree)
        file["signature"] = key.sign(b"tidemark/certificate/1" + file["head"].encode()).hex()
        return formats.write(file).encode() + b"\n"
    file = closed(tree)
    if "head" in file.get("certificate", {}):
        file["certificate"]["signature"] = key.sign(b"tidemark/certificate/1" + file["certificate"]["head"].encode()).hex()
    file.pop("signature", None)
    body = formats.write(file).encode()[:-1]
    return body + b',"signature":"' + key.sign(b"tidemark/invoice/1" + body).hex().encode() + b'"}\n'


def verdict_of(data, asked):
    """Why a file is refused, or nothing, and what is said of it."""
    try:
        if data.startswith(b'{"head"'):
            return None, audit.verify_certificate(data, asked.batches, asked.streams, asked.keys)
        return None, verify.verify_invoice(data, asked.keys)
    except formats.Refused as refused:
        return str(refused), []
    except formats.MALFORMED as error:
        return f"form: {type(error).__name__}", []


def private_key(file):
    data = Path(file).read_bytes()
    return Ed25519PrivateKey.from_private_bytes(data) if len(data) == 32 else load_der_private_key(data, None)


def skip_checks(what):
    """Takes checks out of verify.py, to see that changes are noticed by them alone."""
    ask = formats.need

    def need(holds, place, text):
        if what not in text:
            ask(holds, place, text)
    for module in (formats, verify, audit):
        module.need = need


def main():
    parser = argparse.ArgumentParser(description="Changes artefacts, and sees that each change is refused.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--changes", type=int, default=1000, help="of each kind, over all files together")
    parser.add_argument("--key", help="the operator's private key: re-signed changes too")
    parser.add_argument("--without", help="checks whose words have this are skipped: changes should then be accepted")
    parser.add_argument("--reasons", action="store_true", help="prints what refused re-signed changes")
    for name in ("keys", "batches", "streams"):
        parser.add_argument(f"--{name}", help="as of verify.py")
    parser.add_argument("files", nargs="+", type=Path)
    asked = parser.parse_args()
    if asked.without:
        skip_checks(asked.without)
    draw, key = random.Random(asked.seed), asked.key and private_key(asked.key)
    files = [file.read_bytes() for file in asked.files]
    counts, reasons, bad, notes = Counter(), Counter(), 0, []
    for file, data in zip(asked.files, files):
        why, said = verdict_of(data, asked)
        notes.append(said)
        if why:
            print(f"{file} is refused before any change: {why}")
            sys.exit(2)
    for kind in ["byte", "field"] + ["re-signed"] * bool(key):
        for number in range(asked.changes):
            file, data = asked.files[number % len(files)], files[number % len(files)]
            if kind == "byte":
                at = draw.randrange(len(data))
                what, other = f"byte {at}", data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1:]
            else:
                tree = opened(data)
                what = " ".join(change_field(draw, tree))
                other = signed(tree, key) if kind == "re-signed" else formats.write(closed(tree)).encode() + b"\n"
            why = verdict_of(other, asked)[0] if other != data else "the same"
            verdict = "refused" if why else "unproved" if kind == "re-signed" and is_unproved(what.split()[0], opened(data), notes[number % len(files)]) else "accepted"
            counts[kind, verdict] += 1
            if kind == "re-signed" and why:
                reasons[re.sub(r"[0-9]+|'.*'|\{.*", "N", why.split(": ", 1)[-1])[:70]] += 1
            if verdict == "accepted":
                bad += 1
                print(f"{file}: accepted, though changed ({kind}, seed {asked.seed}, number {number}): {what}")
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind}: {counts[kind, 'refused']} refused, {counts[kind, 'accepted']} accepted"
              + (f", {counts[kind, 'unproved']} of fields that nothing proves" if kind == "re-signed" else ""))
    for why, count in reasons.most_common() if asked.reasons else []:
        print(f"{count:6} {why}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
