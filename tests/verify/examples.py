"""The examples that every verifier must agree on: valid proofs, and such as a dishonest operator with the key could sign.

    examples.py --write     makes tests/verify/examples/ anew
    examples.py             checks that verify.py accepts the valid ones, and refuses each invalid one for its reason
"""
import argparse, copy, json, shutil
from decimal import Decimal
from pathlib import Path

import audit, scenarios, verify
from artefacts import Key, Ledger, sha, text
from documents import PLACES, ROUNDING, sign
from formats import MALFORMED, Refused

FOLDER = Path(__file__).parent / "examples"
INVALID = {}
# A ledger whose usage has what the changes are about.
SEED = 13


def invalid(base, what, says):
    """Registers a change: of which scenario, what it is, and part of what verify.py says of it."""
    def register(change):
        INVALID[change.__name__.replace("_", "-")] = (base, what, says, change)
        return change
    return register


class Proof:
    """A proof to be changed: the file and, opened, its document."""

    def __init__(self, ledger, document):
        self.ledger, self.key = ledger, ledger.key
        self.file, self.document = copy.deepcopy(document.proof()), copy.deepcopy(document.json)

    def line(self, description, section=0):
        lines = self.document["sections"][section]["lines"]
        return next(line for line in lines if line["description"] == description)

    def row(self, meter, part=0):
        """Where the first row of a meter stands in a part: (its line's rows, index into days, index of the text)."""
        for rows in self.file["parts"][part]["rows"]:
            for at, indexes in rows:
                for index in indexes:
                    if json.loads(self.file["days"][at][1][index])[:2] == ["row", meter]:
                        return rows, at, index

    def charge(self, line, amount):
        """Has a line cost another amount, and all sums follow."""
        line["rated"]["amount"] = line["amount"] = amount
        self.add_up()

    def add_up(self):
        """All sums as they follow from the lines' amounts."""
        document, total = self.document, Decimal(0)
        places = PLACES[document["currency"]]
        money = lambda value: f"{value:.{places}f}"
        for section in document["sections"]:
            section["total"] = money(sum(Decimal(line["amount"]) for line in section["lines"]))
        document["subtotal"] = money(sum(Decimal(section["total"]) for section in document["sections"]))
        for tax in document["taxes"]:
            lines = sum(Decimal(line["amount"]) for section in document["sections"] for line in section["lines"] if line.get("tax", "") == tax["name"])
            percent = Decimal(tax["percent"])
            exact = lines * percent / (100 + percent if tax["inclusive"] else 100)
            of_it = exact.quantize(Decimal(1).scaleb(-places), ROUNDING[self.file["tax_rounding"]])
            tax["net"], tax["tax"] = money(lines - of_it if tax["inclusive"] else lines), money(of_it)
            total += Decimal(tax["net"]) + of_it
        document["total"] = money(total)
        if document["kind"] == "invoice":
            document["amount_due"] = money(total - Decimal(document["credit_applied"]))

    def bytes(self):
        return sign(self.file | {"document": text(self.document), "key": self.key.hex}, self.key)


@invalid("models", "one letter of the document is another, and the file is not signed anew", "signature")
def signature(proof):
    return proof.bytes().replace(b"Us GmbH", b"Us GmbX")

@invalid("models", "signed by a key that was never published (`--keys keys.json`)", "not published")
def unpublished_key(proof):
    proof.key = Key(sha(b"somebody else's key"))

@invalid("models", "the certificate counts one batch more, and only the file is signed anew", "head: the signature")
def head_changed(proof):
    proof.file["certificate"]["head"] = proof.file["certificate"]["head"].replace('"batches":', '"batches":1')

@invalid("models", "the document names another certificate than the file carries", "another certificate")
def other_certificate(proof):
    proof.document["cut"]["certificate"]["number"] += 1

@invalid("models", "a row's sum is higher, and nothing else", "usage_root")
def row_changed(proof):
    _, at, index = proof.row("payments")
    row = json.loads(proof.file["days"][at][1][index])
    row[8] = str(int(row[8]) + 10**9)
    proof.file["days"][at][1][index] = text(row)
    proof.file["days"][at][1].sort(key=str.encode)

@invalid("models", "one digest of the path is another", "usage_root")
def path_changed(proof):
    proof.file["path"]["siblings"][20] = "0" * 64

@invalid("models", "a day that the part touches is given as its digest", "as a digest")
def day_hidden(proof):
    _, at, _ = proof.row("payments")
    day = proof.file["days"][at]
    day[1] = proof.ledger.day(proof.file["customer"], day[0]).hex()
    for part in proof.file["parts"]:
        part["rows"] = [[pair for pair in rows if pair[0] != at] for rows in part["rows"]]
        part["elsewhere"] = [pair for pair in part["elsewhere"] if pair[0] != at]

@invalid("models", "usage of a line is not named, as if it had not been; the line is the less", "not of the line that takes it")
def usage_left_out(proof):
    rows, at, index = proof.row("tokens")
    rows[:] = [[day, [each for each in indexes if (day, each) != (at, index)]] for day, indexes in rows if (day, indexes) != (at, [index])]

@invalid("models", "a row that its sender may not bill is of a line", "not of the line that takes it")
def unauthorised_billed(proof):
    for at, (_, texts) in enumerate(proof.file["days"]):
        for index, each in enumerate(texts if isinstance(texts, list) else []):
            row = json.loads(each)
            if row[0] == "row" and row[3] == "unauthorised":
                position = next(n for n, line in enumerate(proof.document["sections"][0]["lines"]) if line["rated"].get("meter") == row[1])
                days = dict(proof.file["parts"][0]["rows"][position])
                days[at] = sorted([*days.get(at, []), index])
                proof.file["parts"][0]["rows"][position] = [[day, days[day]] for day in sorted(days)]
                return

@invalid("parts", "one text stands in a line's rows and elsewhere", "stands twice")
def counted_twice(proof):
    _, at, index = proof.row("payments", 1)
    proof.file["parts"][1]["elsewhere"] = [[at, [index]]]

@invalid("models", "a quantity of 1 more than was used, and the amounts of that", "by the plan and the usage it is")
def quantity(proof):
    line = proof.line("users")
    line["rated"]["quantity"] = str(int(line["rated"]["quantity"]) + 1)
    line["rated"]["events"] += 1
    proof.charge(line, f"{Decimal(line['rated']['quantity']) * Decimal('1.5'):.2f}")

@invalid("models", "a unit price of the line that is not the plan's", "by the plan and the usage it is")
def price(proof):
    proof.line("users")["rated"]["unit_price"] = "1.50001"

@invalid("models", "an amount that is one minor unit more, and all sums of it", "by the plan and the usage it is")
def amount(proof):
    line = proof.line("api.calls{model=large}")
    proof.charge(line, f"{Decimal(line['amount']) + Decimal('0.01'):.2f}")

@invalid("models", "a maximum that the plan has is not on the line, and not held", "by the plan and the usage it is")
def maximum(proof):
    line = proof.line("disk")
    charge = line["rated"].pop("charge")
    del line["rated"]["maximum"]
    proof.charge(line, charge)

@invalid("parts", "a fee of a part is charged whole", "by the plan and the usage it is")
def not_prorated(proof):
    line = next(line for line in proof.document["sections"][0]["lines"][12:] if line["description"] == "Setup")
    proof.charge(line, "120.00")

@invalid("parts", "the trial is charged: the part says that it is none", "`trial`")
def trial_charged(proof):
    proof.file["parts"][0]["trial"] = False

@invalid("parts", "a part begins a day earlier than the subscription", "not in force")
def part_too_long(proof):
    proof.file["parts"][0]["from"] -= 96

@invalid("models", "a line of the plan is left out of a period's section", "before it should be")
def line_missing(proof):
    at = next(n for n, line in enumerate(proof.document["sections"][0]["lines"]) if line["description"] == "credits")
    del proof.document["sections"][0]["lines"][at]
    part = proof.file["parts"][0]
    del part["rows"][at]
    part["lines"] = list(range(len(part["rows"])))
    proof.add_up()

@invalid("parts", "a share of a discount is less by one minor unit, and all sums of it", "shares do not come to it")
def discount(proof):
    line = [line for line in proof.document["sections"][0]["lines"] if line["description"].startswith("Discount") and "rated" not in line][0]
    line["amount"] = f"{Decimal(line['amount']) + Decimal('0.01'):.2f}"
    proof.add_up()

@invalid("parts", "the minimum commitment is short by other than its lines are", "by the plan and the usage it is")
def commitment(proof):
    proof.charge(proof.line("Minimum commitment"), "900.00")

@invalid("models", "a tax of one minor unit more, the total with it", ".tax")
def tax(proof):
    proof.document["taxes"][0]["tax"] = f"{Decimal(proof.document['taxes'][0]['tax']) + Decimal('0.01'):.2f}"
    proof.document["total"] = proof.document["amount_due"] = f"{Decimal(proof.document['total']) + Decimal('0.01'):.2f}"

@invalid("parts", "a line's tax is not the price's, and all sums follow", "its tax is not")
def tax_of_a_line(proof):
    next(line for line in proof.document["sections"][0]["lines"] if line["description"] == "users" and line["tax"] == "low")["tax"] = "de"
    proof.add_up()

@invalid("models", "a line has another name than its meter", "it is described as")
def description(proof):
    proof.line("users")["description"] = "clients"

@invalid("models", "a total that is not the sum of nets and taxes", "total")
def total(proof):
    proof.document["total"] = proof.document["amount_due"] = f"{Decimal(proof.document['total']) + 1:.2f}"

@invalid("yen", "credit that was applied is due all the same", "amount_due")
def amount_due(proof):
    proof.document["amount_due"] = proof.document["total"]

@invalid("yen", "what was invoiced before is charged again", "less what was invoiced before")
def invoiced_again(proof):
    line = proof.line("Base")
    line["amount"] = line["rated"]["amount"]
    proof.add_up()

@invalid("correction", "a line of a credit note has the sign of an invoice", "less what was invoiced before")
def sign_of_note(proof):
    line = proof.line("seats")
    line["amount"] = line["amount"].removeprefix("-") if line["amount"][0] == "-" else "-" + line["amount"]
    proof.add_up()

@invalid("models", "a space between two tokens of the document; the JSON says the same", "not written by the rules")
def spaced(proof):
    proof.bytes = lambda: sign(proof.file | {"document": text(proof.document).replace('{"kind"', '{ "kind"', 1)}, proof.key)

@invalid("models", "the total stands twice in the document, the second a lower one", "not written by the rules")
def total_twice(proof):
    proof.bytes = lambda: sign(proof.file | {"document": text(proof.document).replace(
        ',"credit_applied"', ',"total":"0.01","credit_applied"')}, proof.key)


def made():
    """Name and bytes of each example, with what is wrong with it, and what verify.py says."""
    ledger = Ledger(SEED, customers=4, buckets=26)
    valid = {name: document for name, document in scenarios.documents(ledger) if name not in ("untaxed", "models-even")}
    for name, document in valid.items():
        yield f"valid-{name}.json", sign(document.proof(), ledger.key), None, None
    for name, (base, what, says, change) in INVALID.items():
        proof = Proof(ledger, valid[base])
        yield f"invalid-{name}.json", change(proof) or proof.bytes(), what, says
    yield "certificate.json", ledger.certificate.encode(), None, None
    yield "streams.txt", "".join(line + "\n" for line in ledger.stream_texts).encode(), None, None
    yield "keys.json", text(ledger.keys()).encode() + b"\n", None, None


def write_all():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    ledger, reasons = Ledger(SEED, customers=4, buckets=26), {}
    ledger.archive(FOLDER / "archive")
    for name, data, what, says in made():
        (FOLDER / name).write_bytes(data)
        if what:
            reasons[name] = {"changed": what, "says": says}
    (FOLDER / "reasons.json").write_text(json.dumps(reasons, indent=1) + "\n", encoding="utf-8")


def check_all():
    """Answers with the number of examples that are not judged as they should be."""
    reasons, wrong = json.loads((FOLDER / "reasons.json").read_bytes()), 0
    for file in sorted(FOLDER.glob("*valid-*.json")):
        wanted = reasons.get(file.name, {}).get("says")
        try:
            verify.verify_invoice(file.read_bytes(), FOLDER / "keys.json")
            found = None
        except Refused as refused:
            found = str(refused)
        except MALFORMED as error:
            found = f"{type(error).__name__}: {error}"
        is_right = found is None if wanted is None else found is not None and wanted in found
        wrong += not is_right
        print(f"{'as it should be' if is_right else 'WRONG'}: {file.name}: {(found or 'all holds')[:150]}")
    try:
        said = audit.verify_certificate((FOLDER / "certificate.json").read_bytes(), FOLDER / "archive", FOLDER / "streams.txt", FOLDER / "keys.json")
        print(f"as it should be: certificate.json: {said[-1]}")
    except (Refused, *MALFORMED) as refused:
        wrong += 1
        print(f"WRONG: certificate.json: {refused}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description="Makes or checks the examples for verifiers.")
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        write_all()
    raise SystemExit(1 if check_all() else 0)


if __name__ == "__main__":
    main()
