"""Named documents over one ledger: between them every model, aggregation, term and kind of section.

    scenarios.py [--seed N] DIR     writes the archive, the certificate, the streams' texts, the keys and these documents' proofs
"""
import argparse
from pathlib import Path

from artefacts import NOVEMBER, OCTOBER, SEPTEMBER, Ledger, quarter, text
from documents import MODELS, Document, sign

ALL, LATER, EXTRA, YEN, DINAR = MODELS


def part(plan, terms, begin, end, **more):
    return {"plan": plan, "terms": terms, "from": quarter(begin), "to": quarter(end)} | more


def models(ledger, customer, **more):
    """One whole month of a plan that the customer is always on."""
    section = {"kind": "period", "plan": "all", "period": OCTOBER, "parts": [part(ALL, {"customer": customer, "plan": "all"}, *OCTOBER)]}
    return Document(ledger, customer, "INV2026-000001", [section], **more)


def parts(ledger, customer, **more):
    """A trial, another version, a subscription's own price, fee and discount, which is spread over taxes; a second plan."""
    terms = {"customer": customer, "plan": "all", "start": "2026-10-05T00:00:00+02:00", "trial_end": "2026-10-10T00:00:00+02:00", "discount": "12.5",
             "fee": [{"name": "Base", "amount": "39", "timing": "arrears", "tax": "low"}, {"name": "Setup", "amount": "120", "timing": "arrears"}],
             "price": [{"meter": "tokens", "where": {"model": "large"}, "unit_price": "0.08", "included": "31", "maximum": "900"}]}
    cuts = [terms["start"], terms["trial_end"], LATER["effective"], OCTOBER[1]]
    sections = [
        {"kind": "period", "plan": "all", "period": OCTOBER, "parts": [
            part(ALL, terms, *cuts[:2], trial=True), part(ALL, terms, *cuts[1:3]), part(LATER, terms, *cuts[2:])]},
        {"kind": "period", "plan": "extra", "period": OCTOBER, "parts": [part(EXTRA, {"customer": customer, "plan": "extra"}, *OCTOBER)]},
        {"kind": "advance", "plan": "all", "period": NOVEMBER, "parts": [part(LATER, terms, *NOVEMBER)],
         "keep": lambda line: line["description"] == "Support"}]
    return Document(ledger, customer, "INV2026-000002", sections, **more)


def correction(ledger, customer, **more):
    """A run that comes to less than 0: a credit note. One line is charged no longer."""
    terms = {"customer": customer, "plan": "all", "discount": "10"}
    before = {"Base": 4990, "api.calls{model=large}": 1_000_000, "seats": 200_000, "Discount 10 %": -50}
    section = {"kind": "correction", "plan": "all", "period": OCTOBER, "parts": [part(ALL, terms, *OCTOBER)], "before": before,
               "keep": lambda line: line["description"] in ("api.calls{model=large}", "seats", "tokens", "Discount 10 %"), "gone": [("Old", "de", 77)]}
    return Document(ledger, customer, "CN2026-000001", [section], **more)


def yen(ledger, customer, **more):
    """A currency without places; a fee in advance, which was charged before for its own period."""
    terms = {"customer": customer, "plan": "yen", "end": "2026-11-16T00:00:00+01:00"}
    sections = [{"kind": "period", "plan": "yen", "period": OCTOBER, "parts": [part(YEN, terms, *OCTOBER)], "before": {"Base": 1000}},
                {"kind": "advance", "plan": "yen", "period": NOVEMBER, "parts": [part(YEN, terms, NOVEMBER[0], terms["end"])],
                 "keep": lambda line: line["description"] == "Base"}]
    return Document(ledger, customer, "INV2026-000003", sections, currency="JPY", default_tax="in", credit=7, **more)


def dinar(ledger, customer, **more):
    """Three places, a commitment for a term, taxes that a service said; with `customer` the last one, no usage at all."""
    terms = {"customer": customer, "plan": "dinar"}
    section = {"kind": "period", "plan": "dinar", "period": OCTOBER, "parts": [part(DINAR, terms, *OCTOBER, term=(300_000, 12_446))]}
    return Document(ledger, customer, "INV2026-000004", [section], currency="KWD", service=True, default_tax="vat", **more)


def early(ledger, customer, **more):
    """A corrected period that begins before the usage tree does."""
    section = {"kind": "correction", "plan": "yen", "period": SEPTEMBER, "parts": [part(YEN, {"customer": customer, "plan": "yen"}, *SEPTEMBER)]}
    return Document(ledger, customer, "INV2026-000005", [section], currency="JPY", default_tax=None, **more)


SCENARIOS = [models, parts, correction, yen, dinar, early]


def documents(ledger):
    """Each scenario of a customer with usage, one with another rounding, and one of a customer without any usage."""
    busy, quiet = ledger.customers[:-1], ledger.customers[-1]
    for number, scenario in enumerate(SCENARIOS):
        yield scenario.__name__, scenario(ledger, busy[number % len(busy)])
    yield "models-even", models(ledger, busy[1], rounding="half_even", default_tax="in")
    yield "untaxed", models(ledger, busy[2], default_tax="reverse_charge")
    yield "no-usage", dinar(ledger, quiet)


def main():
    parser = argparse.ArgumentParser(description="Writes artefacts for verifiers.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--buckets", type=int, default=60, help="of each customer")
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    ledger = Ledger(asked.seed, buckets=asked.buckets)
    asked.folder.mkdir(parents=True)
    ledger.archive(asked.folder / "archive")
    (asked.folder / "certificate.json").write_text(ledger.certificate, encoding="utf-8")
    (asked.folder / "streams.txt").write_text("".join(line + "\n" for line in ledger.stream_texts), encoding="utf-8")
    (asked.folder / "keys.json").write_text(text(ledger.keys()) + "\n", encoding="utf-8")
    (asked.folder / "key").write_bytes(ledger.key.private.private_bytes_raw())
    for name, document in documents(ledger):
        (asked.folder / f"invoice-{name}.json").write_bytes(sign(document.proof(), ledger.key))


if __name__ == "__main__":
    main()
