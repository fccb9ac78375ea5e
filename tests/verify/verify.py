"""Verifies Tidemark's invoices and certificates, from the published formats alone (deploy/docs/proofs.md).

    verify.py [--keys FILE] invoice.json
    verify.py [--keys FILE] [--streams FILE] --batches DIR certificate.json

Exit code 0: all holds. 1: refused; a line says what does not hold, and where. 2: the file cannot be read.
Needs `cryptography`, and for what is compressed Python 3.14, the package `zstandard` or the command `zstd`.
"""
import argparse, sys, tomllib
from fractions import Fraction
from pathlib import Path
import audit
from formats import (DAY, MALFORMED, NANO, PLACES, H, Refused, aggregate, amount_text, ascending, bucket_of, compare_keys, decimal, form,
                     included_usage, item, milliseconds, need, quantity_text, read, read_head, rounded, signed, write)

# --- Prices

def charge(price, quantity, events):
    """Exact, in whole units of the currency; with what of the price a document shows."""
    model, of = price.get("model", "per_unit"), lambda name, table=price: decimal(table.get(name, "0"), name)
    names = {"per_unit": ["unit_price"], "package": ["package_size", "package_price"], "percentage": ["percent", "per_event"]}
    keys = {name: price.get(name, "0") for name in names.get(model, [])}
    if model == "per_unit":
        return quantity * of("unit_price"), keys
    if model == "package":
        return -(-quantity // of("package_size")) * of("package_price"), keys
    if model == "percentage":
        return quantity * of("percent") / 100 + of("per_event") * events, keys
    is_graduated = {"graduated": True, "volume": False}[model]
    tiers, below, amount = [{"flat": "0"} | tier for tier in price["tier"]], 0, 0
    for tier in tiers:
        up_to = of("up_to", tier) if "up_to" in tier else max(quantity, below)
        if quantity > below and (is_graduated or quantity <= up_to):
            amount += (min(quantity, up_to) - (below if is_graduated else 0)) * of("unit_price", tier) + of("flat", tier)
        below = up_to
    keys = {"tiers": [{name: tier[name] for name in ("up_to", "unit_price", "flat") if name in tier} for tier in tiers]}
    return amount if quantity > 0 else quantity * of("unit_price", tiers[0]), keys

def takes(price, meter, dimensions):
    return price["meter"] == meter and price.get("where", {}).items() <= dimensions.items()

def identity(kind, table):
    """What a line is of: a fee's name, a meter and `where`; of others the kind says it."""
    return kind, (table["name"] if kind == "fee" else
                  (table["meter"], dict(sorted(table.get("where", {}).items()))) if kind == "usage" else "")

class Part:
    """A part of a section: its terms, its lines, and what each of these comes to."""
    def __init__(self, file, document, index, notes):
        self.place, self.notes, self.currency = f"parts[{index}]", notes, document["currency"]
        self.places, self.asks_for_taxes = PLACES.get(self.currency, 2), file["tax_rounding"] is None
        self.part = part = form(file["parts"][index], "section lines plan subscription from to trial rounding rows elsewhere", self.place)
        self.section = item(document["sections"], part["section"], self.place)
        ascending(part["lines"], f"{self.place}.lines")
        self.lines = [item(self.section["lines"], line, f"{self.place}.lines") for line in part["lines"]]
        self.names = [identity(line["rated"]["kind"], line["rated"]) if "rated" in line else ("discount", "") for line in self.lines]
        (plan,) = tomllib.loads(item(file["plans"], part["plan"], self.place))["plan"]
        (terms,) = tomllib.loads(item(file["subscriptions"], part["subscription"], self.place))["subscription"]
        self.check_terms(file, plan, terms)
        own, fees = terms.get("price", []), {fee["name"]: fee for fee in plan.get("fee", []) + terms.get("fee", [])}
        self.prices = own + [price for price in plan.get("price", []) if not any(
            takes(before, price["meter"], price.get("where", {})) for before in own)]
        self.items = [("fee", fee) for fee in fees.values()] + [("usage", price) for price in self.prices] + [
            (kind, table) for kind, table in (("discount", terms), ("commitment", plan)) if kind in table]

    def check_terms(self, file, plan, terms):
        """A part begins and ends where its period does, or a term of its plan or subscription."""
        part, place = self.part, self.place
        start, end = self.period = [bucket_of(self.section[name], place) for name in ("start", "end")]
        begins, ends, trial_end = (bucket_of(terms.get(name), place) for name in ("start", "end", "trial_end"))
        versions = [tomllib.loads(text)["plan"][0] for text in file["plans"]]
        cuts = {bucket_of(other.get("effective"), place) for other in versions if other["name"] == plan["name"]} | {trial_end}
        effective = bucket_of(plan.get("effective"), place)
        need(terms["customer"] == file["customer"] and terms["plan"] == plan["name"] == self.section["plan"], place, "not its plan")
        need(plan["currency"] == self.currency, place, "the plan has another currency")
        need(max(start, begins or 0, effective or 0) <= part["from"] < part["to"] <= min(end, ends or end), place, "not in force")
        need(part["from"] in (start, begins, trial_end, effective), place, "`from` is of no term")
        need(part["to"] in {end, ends} | cuts, place, "`to` is of no term")
        need(not any(part["from"] < cut < part["to"] for cut in cuts - {None}), place, "it is not cut where it should be")
        need(part["trial"] is bool(trial_end and part["to"] <= trial_end), place, "`trial` is not as the subscription says")
        need(part["rounding"] == plan.get("rounding", file["tax_rounding"] or part["rounding"]), place, "another rounding")

    def prorated(self, amount, whole=None):
        (start, end), whole = self.period, whole or (lambda value: rounded(value, self.part["rounding"]))
        begin, upto = (whole(amount * Fraction(at - start, end - start)) for at in (self.part["from"], self.part["to"]))
        return upto - begin

    def prorated_money(self, table, name):
        return self.prorated(decimal(table[name], self.place) * 10**self.places)

    def usage(self, days, taken):
        """The usage of each line. All that a price takes is of its line, or elsewhere; a correction shows some lines alone."""
        part, named, usage, together = self.part, {}, [[] for _ in self.lines], {}
        need(len(part["rows"]) == len(self.lines), self.place, "not as many `rows` as lines")
        for where, rows in [*enumerate(part["rows"]), ("elsewhere", part["elsewhere"])]:
            ascending([day for day, _ in rows], self.place)
            for day, indexes in rows:
                ascending(indexes, self.place)
                need(indexes, self.place, "a day without texts")
                for index in indexes:
                    item(item(days, day, self.place)[1] or [], index, self.place)
                    need(named.setdefault((day, index), where) == where, self.place, f"days[{day}], text {index} stands twice")
        for at, (day, texts) in enumerate(days):
            if day * DAY < part["to"] and part["from"] < (day + 1) * DAY:
                need(texts is not None or all(kind != "usage" for kind, _ in self.names), self.place, f"day {day} is given as a digest")
                for index, text in enumerate(texts or []):
                    is_billed = text.category == "normal" and part["from"] <= text.bucket < part["to"]
                    price = next((each for each in self.prices if is_billed and takes(each, text.meter, text.dimensions)), None)
                    where, place = named.pop((at, index), None), f"{self.place}, day {day}, text {index}"
                    line = price and next((n for n, name in enumerate(self.names) if name == identity("usage", price)), None)
                    need(where == line or price and where == "elsewhere", place, "it is not of the line that takes it")
                    if price:
                        need(together.setdefault(text.key, where) == where, place, "another text of its key is elsewhere")
                    if where not in (None, "elsewhere"):
                        need((at, index) not in taken, place, "it is of two lines")
                        taken.add((at, index))
                        usage[where].append(text)
        need(not named, self.place, f"usage of another time: {list(named)[:3]}")
        return usage

    def amounts(self, days, head, taken, sign):
        """What each line comes to, in minor units; `None` for a share of a discount."""
        part, usage, before, amounts, at, is_complete = self.part, self.usage(days, taken), [], {}, 0, True
        is_proved = part["from"] >= head["from_day"] * DAY
        for kind, table in self.items:
            begin, place = at, f"sections[{part['section']}].lines[{part['lines'][at] if at < len(self.lines) else 'end'}]"
            while self.names[at:at + 1] == [identity(kind, table)] and (at == begin or kind == "discount"):
                at += 1
            if at == begin:
                is_free = kind == "commitment" and "commitment_term" in table
                need(is_free or self.section["kind"] != "period", place, f"before it should be {identity(kind, table)}")
                is_complete = is_complete and is_free
                continue
            lines, numbers = self.lines[begin:at], part["lines"][begin:at]
            rated = next((line["rated"] for line in lines if "rated" in line), {})
            amount, keys = self.computed(kind, table, rated, usage[begin], before, is_proved, place)
            if not is_complete and kind in ("discount", "commitment") and "term" not in keys:
                self.notes.append(f"{place}: the {kind} is of lines that are not shown, and was not computed")
                amount = money(rated, "amount", self.places, place) if rated else None
            where = ",".join(f"{name}={value}" for name, value in sorted(table.get("where", {}).items()))
            name = {"fee": table.get("name"), "usage": table.get("meter", "") + f"{{{where}}}" * bool(where),
                    "discount": f"Discount {table.get('discount')} %", "commitment": "Minimum commitment"}[kind]
            for number, line in zip(numbers, lines):
                need(line["description"] == name, place, f"it is described as {line['description']!r}, and is {name!r}")
                is_free = "invoiced_before" in line or self.asks_for_taxes or line.get("tax") in ("exempt", "reverse_charge")
                need(is_free or "tax" not in table or line.get("tax") == table["tax"], place, f"its tax is not {table.get('tax')!r}")
                wanted = {"kind": kind} | keys | {"amount": amount_text(amount or 0, self.places), "currency": self.currency}
                need(write(line.get("rated", wanted)) == write(wanted), place, f"by the plan and the usage it is {write(wanted)}")
                amounts[number] = amount if "rated" in line else None
            shares = sum(sign * money(line, "amount", self.places, place) + money(line, "invoiced_before", self.places, place) for line in lines)
            need(kind != "discount" or not is_complete or shares == amount, place, "the discount's shares do not come to it")
            before.append(amount or 0)
        need(at == len(self.lines), self.place, f"line {part['lines'][at:at + 1]} is not the plan's, or not in its order")
        return amounts

    def computed(self, kind, table, rated, usage, before, is_proved, place):
        """The amount of a line, and the keys of `rated` that say how it came about."""
        part, (start, end) = self.part, self.period
        if kind == "fee":
            amount, keys = self.prorated_money(table, "amount"), {
                "name": table["name"], "timing": table.get("timing", "arrears"), "fee": table["amount"]}
        elif kind == "discount":
            amount = -rounded(sum(before) * decimal(table["discount"], place) / 100, part["rounding"])
            keys = {"percent": table["discount"]}
        elif kind == "usage":
            amount, keys = self.usage_line(table, rated, usage, is_proved, place)
        elif "commitment_term" in table:
            term = form(rated["term"], "from to due charged", place)
            need(bucket_of(term["from"], place) <= start < bucket_of(term["to"], place), place, "its term is another")
            amount = max(money(term, "due", self.places, place) - money(term, "charged", self.places, place), 0)
            self.notes.append(f"{place}: what the term's other periods were charged is proved by their documents")
            return 0 if part["trial"] else amount, {"commitment": table["commitment"], "term": term}
        else:
            amount = max(self.prorated_money(table, "commitment") - sum(before), 0)
            keys = {"commitment": table["commitment"]}
        if rated and (part["trial"] or [part["from"], part["to"]] != [start, end]):
            times = {name: rated["part"][name] for name in ("from", "to")}
            need(all(bucket_of(time, place) == part[name] for name, time in times.items()), place, "it is of another part")
            length = {"quarters": part["to"] - part["from"], "of": end - start}
            keys = keys | {"part": times | length | ({"trial": True} if part["trial"] else {})}
        return 0 if part["trial"] else amount, keys

    def usage_line(self, price, rated, usage, is_proved, place):
        quantity, events = aggregate(usage, rated["aggregation"], place)
        if not is_proved:
            quantity, events = decimal(rated["quantity"], place), rated["events"]
            self.notes.append(f"{place}: usage from before the certificate's first day is not proved")
        whole = decimal(price.get("included", "0"), place)
        included = Fraction(self.prorated(whole * NANO, lambda value: -(-value // 1)), NANO)
        billed = max(quantity - included, 0) if quantity > 0 else quantity
        exact, model = charge(price, billed, events)
        amount = charged = rounded(exact * 10**self.places, self.part["rounding"])
        amount = max(amount, self.prorated_money(price, "minimum")) if "minimum" in price else amount
        amount = min(amount, self.prorated_money(price, "maximum")) if "maximum" in price else amount
        amount = 0 if self.part["trial"] else amount
        keys = {"meter": price["meter"], "where": identity("usage", price)[1][1] or None, "aggregation": rated["aggregation"],
                "unit": rated.get("unit"), "quantity": quantity_text(quantity), "events": events,
                "included": quantity_text(included) if whole else None, "billed": quantity_text(billed) if whole else None,
                "model": price.get("model", "per_unit"), **model, "minimum": price.get("minimum"), "maximum": price.get("maximum"),
                "charge": amount_text(charged, self.places) if charged != amount else None}
        return amount, {name: value for name, value in keys.items() if value is not None}

# --- The document

def money(table, name, places, place):
    """In minor units; 0 where it is absent."""
    minor = decimal(table.get(name, "0"), f"{place}.{name}") * 10**places
    need(minor.denominator == 1 and table.get(name, amount_text(0, places)) == amount_text(int(minor), places), f"{place}.{name}", "no amount")
    return int(minor)

def check_document(document, file, days, head):
    """Every amount, from usage and prices to the total. Answers with notes on what other documents prove."""
    places, taken, amounts, notes, by_tax, last = PLACES.get(document["currency"], 2), set(), {}, [], {}, (0, 0)
    need(document["kind"] in ("invoice", "credit_note") and "credits" not in document, "document.kind", "it has no proof of its own")
    sign = -1 if document["kind"] == "credit_note" else 1
    for index, entry in enumerate(file["parts"]):
        part = Part(file, document, index, notes)
        need(last <= (entry["section"], entry["from"]), part.place, "parts overlap, or do not ascend")
        last = entry["section"], entry["to"]
        for line, amount in part.amounts(days, head, taken, sign).items():
            need((entry["section"], line) not in amounts, part.place, f"line {line} is in two parts")
            amounts[entry["section"], line] = amount
    for texts, name in ((file["plans"], "plan"), (file["subscriptions"], "subscription")):
        need(len({entry[name] for entry in file["parts"]}) == len(texts), name, "one is given that no part has")
    for number, section in enumerate(document["sections"]):
        form(section, "kind plan start end lines total", f"sections[{number}]")
        need(section["kind"] in ("period", "advance", "correction"), f"sections[{number}].kind", "no kind of section")
        for index, line in enumerate(section["lines"]):
            place = f"sections[{number}].lines[{index}]"
            form(line, "description details? rated? invoiced_before? tax? amount", place)
            amount, before = (money(line, name, places, place) for name in ("amount", "invoiced_before"))
            rated = amounts.get((number, index))
            need(("rated" in line) == (rated is not None), place, "it is of no part")
            if rated is not None or (number, index) not in amounts:
                need(rated is not None or "invoiced_before" in line, place, "nothing says how it came about")
                need(amount == sign * ((rated or 0) - before), f"{place}.amount", "not what it comes to less what was invoiced before")
            by_tax[line.get("tax", "")] = by_tax.get(line.get("tax", ""), 0) + amount
        total = sum(money(line, "amount", places, "") for line in section["lines"])
        need(money(section, "total", places, f"sections[{number}]") == total, f"sections[{number}].total", "not the sum of its lines")
    need(money(document, "subtotal", places, "document") == sum(by_tax.values()), "subtotal", "not the sum of all lines")
    need(sorted(by_tax) == sorted(tax["name"] for tax in document["taxes"]), "taxes", "not those that the lines name")
    need(file["tax_rounding"] in (None, "half_up", "half_even"), "tax_rounding", "none of these")
    for tax in document["taxes"]:
        place, rounding, name = f"taxes, {tax['name']!r}", file["tax_rounding"], tax["name"]
        form(tax, "name label category percent inclusive net tax", place)
        net, of_it, percent = money(tax, "net", places, place), money(tax, "tax", places, place), decimal(tax["percent"], place)
        category = {"": "untaxed", "exempt": "exempt", "reverse_charge": "reverse_charge"}.get(name, "taxable")
        need(tax["category"] == (category if rounding else "asked"), f"{place}.category", "not that of its name")
        need(category == "taxable" or not rounding or percent == 0, f"{place}.percent", "what is not taxable is taxed")
        need(not rounding or of_it == rounded(by_tax[name] * percent / (100 + percent * tax["inclusive"]), rounding), f"{place}.tax", "another")
        need(net + of_it * tax["inclusive"] == by_tax[name], f"{place}.net", "not that of its lines")
    total, credit, due = (money(document, name, places, "document") for name in ("total", "credit_applied", "amount_due"))
    need(total == sum(money(tax, name, places, "") for tax in document["taxes"] for name in ("net", "tax")), "total", "not net and tax")
    need(min(total, credit, due) >= 0 and credit + due == (total if sign > 0 else 0), "amount_due", "not what credit leaves of the total")
    return notes

def verify_invoice(data, keys_file=None):
    file = form(read(data.decode().removesuffix("\n"), "file"), "format document certificate customer path days plans subscriptions parts "
                "tax_rounding key signature", "file")
    tail = f',"signature":"{file["signature"]}"}}\n'.encode()
    need(file["format"] == "tidemark invoice 1" and data.endswith(tail), "file", "another format")
    signed(file["key"], b"tidemark/invoice/1" + data.removesuffix(tail), file["signature"], "file")
    certificate, document = form(file["certificate"], "head signature", "certificate"), read(file["document"], "document")
    head = read_head(certificate["head"], certificate["signature"])
    form(document, "kind number date? due_date? issued_at? seller customer currency period_end? credits? reason? sections subtotal taxes "
         "total credit_applied amount_due notes? cut?", "document")
    need(document["customer"]["id"] == file["customer"], "customer", "not the document's")
    cut, notes = document.get("cut", {}), check_document(document, file, included_usage(file, head), head)
    if "certificate" in cut:
        need(cut["certificate"] == {"number": head["number"], "sha256": H(certificate["head"].encode()).hex()}, "cut", "another certificate")
        times = [cut[name] and milliseconds(cut[name], f"cut.{name}") for name in ("as_of", "complete_through")]
        need(times == [head["as_of"], head["complete_through"] or ""], "cut", "another time than the certificate's")
    else:
        notes.append("the document names no certificate: nothing says that it was of this one when it was issued")
    return [*compare_keys(keys_file, head, {file["key"], head["key"]}), *notes,
            f"{document['kind']} {document['number']}: {document['total']} {document['currency']} for {file['customer']}: all holds"]

def main():
    parser = argparse.ArgumentParser(description="Verifies an invoice or, with --batches, a certificate.")
    for name, text in (("keys", "published keys, as /.well-known/tidemark-keys answers them"), ("batches", "the archive's folder"),
                       ("streams", "the streams' texts, one a line")):
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    try:
        data = asked.file.read_bytes()
        print(*(audit.verify_certificate(data, asked.batches, asked.streams, asked.keys) if asked.batches
                else verify_invoice(data, asked.keys)), sep="\n")
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    except MALFORMED as error:
        sys.exit(f"refused: it has not the form that is described: {type(error).__name__}: {error}")
    except OSError as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        sys.exit(2)

if __name__ == "__main__":
    main()
