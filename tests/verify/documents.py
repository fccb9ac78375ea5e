"""Makes documents and their proofs over the usage of a ledger of artefacts.py, as an honest operator would.

Rates with decimals by deploy/docs/pricing.md and invoices.md, and shares no code with verify.py.
"""
import json
from decimal import ROUND_CEILING, Decimal

from artefacts import METERS, NOVEMBER, OCTOBER, ROUNDING, SEPTEMBER, instant, plain, quarter, text

PLACES = {"EUR": 2, "JPY": 0, "KWD": 3}
TAXES = {"de": ("VAT 19 %", "19", False), "low": ("VAT 7 %", "7", False), "in": ("incl. 8.1 %", "8.1", True)}
MODELS = [
    {"name": "all", "currency": "EUR", "interval": "month", "fee": [{"name": "Base", "amount": "49.9", "timing": "arrears", "tax": "de"}], "price": [
        {"meter": "api.calls", "where": {"model": "large"}, "model": "per_unit", "unit_price": "0.033337"},
        {"meter": "api.calls", "model": "graduated", "included": "12.5", "tier": [
            {"up_to": "100", "unit_price": "0", "flat": "0"}, {"up_to": "1000.5", "unit_price": "0.05", "flat": "5"}, {"unit_price": "0.012"}]},
        {"meter": "seats", "model": "volume", "tier": [{"up_to": "10", "unit_price": "9"}, {"unit_price": "7.77", "flat": "3"}]},
        {"meter": "floor", "model": "per_unit", "unit_price": "1.005", "minimum": "4"},
        {"meter": "load", "unit_price": "0.333333333333"},
        {"meter": "disk", "model": "package", "package_size": "10", "package_price": "2.5", "maximum": "7.31"},
        {"meter": "hits", "model": "per_unit", "unit_price": "0.0175", "included": "3"},
        {"meter": "users", "model": "per_unit", "unit_price": "1.5"},
        {"meter": "payments", "model": "percentage", "percent": "1.45", "per_event": "0.25"},
        {"meter": "tokens", "where": {"region": "eu", "model": "large"}, "unit_price": "0.09"},
        {"meter": "tokens", "where": {"model": "small"}, "unit_price": "0.04", "minimum": "1.23"},
        {"meter": "tokens", "unit_price": "0.01", "tax": "low"},
        {"meter": "credits", "unit_price": "0.02"}]},
    {"name": "all", "currency": "EUR", "interval": "month", "effective": "2026-10-20T12:00:00Z", "rounding": "half_even", "commitment": "900", "fee": [
        {"name": "Base", "amount": "55.55", "timing": "arrears", "tax": "de"}, {"name": "Support", "amount": "10", "timing": "advance", "tax": "in"}], "price": [
        {"meter": "api.calls", "model": "package", "package_size": "0.5", "package_price": "0.011", "minimum": "3", "maximum": "8"},
        {"meter": "seats", "unit_price": "8.125"}, {"meter": "users", "unit_price": "1.6", "tax": "low"},
        {"meter": "tokens", "included": "100", "unit_price": "0.011"}, {"meter": "payments", "unit_price": "0.5"}]},
    {"name": "extra", "currency": "EUR", "interval": "month", "price": [
        {"meter": "tokens", "where": {"model": "tiny"}, "unit_price": "0.5"}, {"meter": "payments", "unit_price": "0.25", "included": "1"}]},
    {"name": "yen", "currency": "JPY", "interval": "month", "rounding": "half_even", "fee": [
        {"name": "Base", "amount": "1000.5", "timing": "advance"}], "price": [
        {"meter": "hits", "unit_price": "3.5"}, {"meter": "tokens", "unit_price": "12", "included": "5"}, {"meter": "load", "unit_price": "2"}]},
    {"name": "dinar", "currency": "KWD", "interval": "month", "commitment": "300", "commitment_term": "quarter", "fee": [
        {"name": "Base", "amount": "12.3456", "timing": "arrears"}], "price": [{"meter": "hits", "unit_price": "0.0005", "minimum": "0.1"}]},
]


def toml(kind, table):
    """As the catalogue would write it: plain keys first, tables below."""
    def lines(path, table):
        plain_keys = [(name, value) for name, value in table.items() if not isinstance(value, list)]
        yield f"[[{path}]]"
        for name, value in plain_keys:
            pairs = isinstance(value, dict) and ", ".join(f"{each} = {json.dumps(of)}" for each, of in value.items())
            yield f"{name} = {{ {pairs} }}" if pairs else f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in table.items():
            for each in value if isinstance(value, list) else []:
                yield from lines(f"{path}.{name}", each)
    return "\n".join(lines(kind, table)) + "\n"


class Rated:
    """One part of a period, rated."""

    def __init__(self, ledger, customer, days, part, period, currency, seller_rounding, charged_before):
        self.days, self.part, self.currency, self.places = days, part, currency, PLACES[currency]
        self.start, self.end = quarter(period[0]), quarter(period[1])
        plan, terms = part["plan"], part["terms"]
        self.rounding, self.trial = plan.get("rounding", seller_rounding), part.get("trial", False)
        own = terms.get("price", [])
        hidden = lambda price: any(each["meter"] == price["meter"] and each.get("where", {}).items() <= price.get("where", {}).items() for each in own)
        self.prices = own + [price for price in plan.get("price", []) if not hidden(price)]
        self.lines = []
        self.share_out(charged_before)
        overrides = {fee["name"]: fee for fee in terms.get("fee", [])}
        for fee in plan.get("fee", []):
            self.fee(overrides.pop(fee["name"], fee))
        for fee in overrides.values():
            self.fee(fee)
        for price, rows in zip(self.prices, self.taken):
            self.price(price, rows)
        if "discount" in terms:
            self.discount(terms["discount"])
        total = sum(line["amount"] for line in self.lines)
        if "commitment_term" in plan and "term" in part:
            due, charged = part["term"]
            self.add("commitment", {"commitment": plan["commitment"], "term": {
                "from": OCTOBER[0], "to": OCTOBER[1], "due": self.money(due), "charged": self.money(charged)}}, max(due - charged, 0), None, [], "Minimum commitment")
        elif "commitment" in plan and "commitment_term" not in plan:
            short = max(self.prorated(plan["commitment"]) - total, 0)
            self.add("commitment", {"commitment": plan["commitment"]}, short, None, [], "Minimum commitment")

    def share_out(self, charged_before):
        """Each text to the first price that takes it, or elsewhere where another plan charged it already."""
        self.taken, self.elsewhere = [[] for _ in self.prices], []
        for at, (_, texts) in enumerate(self.days):
            for index, each in enumerate(texts if isinstance(texts, list) else []):
                item = json.loads(each)
                meter, dimensions, bucket = (item[1], item[2], item[4]) if item[0] == "row" else (item[3], item[4], item[5])
                if not self.part["from"] <= bucket < self.part["to"] or item[0] == "row" and item[3] != "normal":
                    continue
                for price, taken in zip(self.prices, self.taken):
                    if price["meter"] == meter and all([name, value] in dimensions for name, value in price.get("where", {}).items()):
                        (self.elsewhere if (at, index) in charged_before else taken).append((at, index))
                        break
        charged_before |= {pair for taken in self.taken for pair in taken}

    def rounded(self, value):
        return int(Decimal(value).quantize(Decimal(1), ROUNDING[self.rounding]))

    def prorated(self, amount):
        whole, length = Decimal(amount) * 10**self.places, self.end - self.start
        upto, before = (self.rounded(whole * (at - self.start) / length) for at in (self.part["to"], self.part["from"]))
        return upto - before

    def money(self, minor):
        return f"{Decimal(minor).scaleb(-self.places):.{self.places}f}"

    def add(self, kind, shown, amount, tax, rows, description):
        amount = 0 if self.trial else amount
        rated = {"kind": kind} | shown
        length = self.part["to"] - self.part["from"]
        if "term" not in shown and (self.trial or length != self.end - self.start):
            rated["part"] = {"from": instant(self.part["from"]), "to": instant(self.part["to"]), "quarters": length, "of": self.end - self.start}
            rated["part"] |= {"trial": True} if self.trial else {}
        rated |= {"amount": self.money(amount), "currency": self.currency}
        self.lines.append({"description": description, "rated": rated, "amount": amount, "tax": tax, "rows": rows})

    def fee(self, fee):
        shown = {"name": fee["name"], "timing": fee.get("timing", "arrears"), "fee": fee["amount"]}
        self.add("fee", shown, self.prorated(fee["amount"]), fee.get("tax"), [], fee["name"])

    def price(self, price, rows):
        events, quantity = self.measured(price["meter"], rows)
        length, included = self.end - self.start, Decimal(price.get("included", "0")) * 10**9
        upto, before = ((included * (at - self.start) / length).to_integral_value(ROUND_CEILING) for at in (self.part["to"], self.part["from"]))
        included = (upto - before) / 10**9
        billed = quantity if quantity <= 0 else max(quantity - included, Decimal(0))
        exact, keys = modelled(price, billed, events)
        amount = charge = self.rounded(exact * 10**self.places)
        if "minimum" in price and amount < self.prorated(price["minimum"]):
            amount = self.prorated(price["minimum"])
        if "maximum" in price and amount > self.prorated(price["maximum"]):
            amount = self.prorated(price["maximum"])
        where = dict(sorted(price.get("where", {}).items()))
        shown = {"meter": price["meter"]} | ({"where": where} if where else {}) | {"aggregation": METERS[price["meter"]]}
        shown |= {"unit": "piece"} if price["meter"] == "seats" else {}
        shown |= {"quantity": plain(quantity), "events": events}
        shown |= {"included": plain(included), "billed": plain(billed)} if "included" in price else {}
        shown |= {"model": price.get("model", "per_unit")} | keys | {name: price[name] for name in ("minimum", "maximum") if name in price}
        shown |= {"charge": self.money(charge)} if charge != (0 if self.trial else amount) else {}
        name = price["meter"] + ("{" + ",".join(f"{each}={value}" for each, value in where.items()) + "}" if where else "")
        self.add("usage", shown, amount, price.get("tax"), rows, name)

    def measured(self, meter, rows):
        """Key by key, correction after correction."""
        keys = {}
        for at, index in rows:
            item = json.loads(self.days[at][1][index])
            item = item if item[0] == "row" else [*item, item[1]]
            key = (text(item[2]), item[4]) if item[0] == "row" else (text(item[4]), item[5])
            keys.setdefault(key, []).append(item)
        events = valued = total = 0
        lows, highs, latest, uniques = [], [], [], set()
        for items in keys.values():
            items.sort(key=lambda item: 0 if item[0] == "row" else item[1])
            state = None
            for item in items:
                if item[0] == "row":
                    _, _, _, _, _, count, with_quantity, _, value, low, high, last, unique = item
                    state = [count, with_quantity, int(value), [int(low)] if low else [], [int(high)] if high else [],
                             [(last[0], int(last[1]))] if last else [], set(unique)]
                    continue
                _, _, kind, _, _, bucket, count, with_quantity, value, _ = item
                if kind == "replace" or state is None:
                    state = [0, 0, 0, [], [], [], set()]
                sign = -1 if kind == "take" else 1
                state[0], state[1], state[2] = state[0] + sign * count, state[1] + sign * with_quantity, state[2] + sign * int(value)
                if kind != "take" and with_quantity:
                    state[3].append(int(value)), state[4].append(int(value)), state[5].append((bucket * 900_000, int(value)))
            events, valued, total = events + state[0], valued + state[1], total + state[2]
            lows, highs, latest, uniques = lows + state[3], highs + state[4], latest + state[5], uniques | state[6]
        nano = {"sum": total, "max": max(highs, default=0), "min": min(lows, default=0), "latest": max(latest, default=(0, 0))[1],
                "count": events * 10**9, "unique_count": len(uniques) * 10**9,
                "average": (Decimal(total) / valued).quantize(Decimal(1), ROUNDING["half_even"]) if valued else 0}[METERS[meter]]
        return events, Decimal(nano) / 10**9

    def discount(self, percent):
        amount = -self.rounded(sum(line["amount"] for line in self.lines) * Decimal(percent) / 100)
        weights = {}
        for line in self.lines:
            weights[line["tax"]] = weights.get(line["tax"], 0) + line["amount"]
        if len(weights) == 1:
            self.add("discount", {"percent": percent}, amount, *weights, [], f"Discount {percent} %")
            return
        total, upto, before = sum(weights.values()), 0, 0
        for number, (tax, weight) in enumerate(weights.items()):
            upto += weight
            share = self.rounded(Decimal(amount) * upto / total) if total else amount
            share = 0 if self.trial else share
            self.lines.append({"description": f"Discount {percent} %", "rated": None, "amount": share - before, "tax": tax, "rows": []})
            before = share


def modelled(price, billed, events):
    """The exact charge, and what a line shows of the price."""
    model = price.get("model", "per_unit")
    if model == "per_unit":
        return billed * Decimal(price["unit_price"]), {"unit_price": price["unit_price"]}
    if model == "package":
        packages = (billed / Decimal(price["package_size"])).to_integral_value(ROUND_CEILING)
        return packages * Decimal(price["package_price"]), {name: price[name] for name in ("package_size", "package_price")}
    if model == "percentage":
        keys = {"percent": price["percent"], "per_event": price.get("per_event", "0")}
        return billed * Decimal(price["percent"]) / 100 + Decimal(keys["per_event"]) * events, keys
    tiers = [({"up_to": tier["up_to"]} if "up_to" in tier else {}) | {"unit_price": tier["unit_price"], "flat": tier.get("flat", "0")}
             for tier in price["tier"]]
    bounds = [Decimal(tier.get("up_to", "Infinity")) for tier in tiers]
    if billed <= 0:
        return billed * Decimal(tiers[0]["unit_price"]), {"tiers": tiers}
    last = next(number for number, bound in enumerate(bounds) if billed <= bound)
    if model == "volume":
        return billed * Decimal(tiers[last]["unit_price"]) + Decimal(tiers[last]["flat"]), {"tiers": tiers}
    amount, rest = Decimal(0), billed
    for number in range(last + 1):
        below = bounds[number - 1] if number else Decimal(0)
        width = min(rest, bounds[number] - below)
        amount += width * Decimal(tiers[number]["unit_price"]) + Decimal(tiers[number]["flat"])
        rest -= width
    return amount, {"tiers": tiers}


class Document:
    """A document of sections, its taxes and its proof."""

    def __init__(self, ledger, customer, number, sections, currency="EUR", rounding="half_up", default_tax="de", service=False, credit=0):
        """`sections`: kind, plan, period, parts (plan, terms, from, to, trial), before, keep (of a line), gone (lines that are charged no longer)."""
        self.ledger, self.customer, self.places, self.service = ledger, customer, PLACES[currency], service
        self.rounding, self.default_tax = rounding, default_tax
        days = ledger.texts.get(customer, {})
        touched = lambda day: any(part["from"] < (day + 1) * 96 and day * 96 < part["to"] for each in sections for part in each["parts"])
        for day in days:
            ledger.day(customer, day)
        self.days = [[day, days[day] if touched(day) else ledger.day(customer, day).hex()] for day in sorted(days)]
        self.plans, self.terms, self.parts, self.sections, charged = [], [], [], [], set()
        total = 0
        for at, section in enumerate(sections):
            lines = []
            for part in section["parts"]:
                rated = Rated(ledger, customer, self.days, part, section["period"], currency, rounding, charged)
                self.take_part(at, section, part, rated, lines)
            for description, tax, amount in section.get("gone", []):
                lines.append({"description": description, "details": "no longer charged", "invoiced_before": amount, "tax": tax, "amount": -amount})
            self.sections.append([section, lines])
            total += sum(line["amount"] for line in lines)
        self.sign = -1 if total < 0 else 1
        self.json = self.document(number, currency, self.sign * total, credit)

    def take_part(self, at, section, part, rated, lines):
        kept = [line for line in rated.lines if section.get("keep", lambda line: True)(line)]
        first, before = len(lines), section.get("before", {})
        for line in kept:
            tax = line["tax"] or self.default_tax
            shown = {"description": line["description"], "details": "in words"} | ({"rated": line["rated"]} if line["rated"] else {})
            if line["description"] in before:
                shown["invoiced_before"] = before[line["description"]]
            shown |= ({"tax": tax} if tax else {}) | {"amount": line["amount"] - before.get(line["description"], 0)}
            lines.append(shown)
        self.parts.append({
            "section": at, "lines": list(range(first, len(lines))), "plan": self.index(self.plans, toml("plan", part["plan"])),
            "subscription": self.index(self.terms, toml("subscription", part["terms"])),
            "from": part["from"], "to": part["to"], "trial": rated.trial, "rounding": rated.rounding,
            "rows": [self.pairs(line["rows"]) for line in kept], "elsewhere": self.pairs(rated.elsewhere)})

    @staticmethod
    def index(texts, each):
        if each not in texts:
            texts.append(each)
        return texts.index(each)

    @staticmethod
    def pairs(rows):
        days = {}
        for at, index in rows:
            days.setdefault(at, []).append(index)
        return [[at, indexes] for at, indexes in sorted(days.items())]

    def money(self, minor):
        return f"{Decimal(minor).scaleb(-self.places):.{self.places}f}"

    def document(self, number, currency, subtotal, credit):
        shown, by_tax = [], {}
        for section, lines in self.sections:
            for line in lines:
                line["amount"] *= self.sign
                by_tax[line.get("tax", "")] = by_tax.get(line.get("tax", ""), 0) + line["amount"]
            total = sum(line["amount"] for line in lines)
            lines = [{name: self.money(value) if name in ("invoiced_before", "amount") else value for name, value in line.items()} for line in lines]
            shown.append({"kind": section["kind"], "plan": section["plan"], "start": section["period"][0], "end": section["period"][1],
                          "lines": lines, "total": self.money(total)})
        taxes, total = [], 0
        for name, lines in by_tax.items():
            label, percent, inclusive = TAXES.get(name, (name, "0", False))
            category = "asked" if self.service else "taxable" if name in TAXES else name or "untaxed"
            exact = lines * Decimal(percent) / (100 + Decimal(percent) if inclusive else 100)
            tax = int(exact.quantize(Decimal(1), ROUNDING[self.rounding])) + (3 if self.service else 0)
            net = lines - tax if inclusive else lines
            total += net + tax
            taxes.append({"name": name, "label": label, "category": category, "percent": percent, "inclusive": inclusive,
                          "net": self.money(net), "tax": self.money(tax)})
        is_note = self.sign < 0
        return {
            "kind": "credit_note" if is_note else "invoice", "number": number, "date": "2026-11-02", "due_date": "2026-11-16",
            "issued_at": "2026-11-02T00:10:00+01:00", "seller": {"id": "us", "name": "Us GmbH", "address": ["Street 1", "Town"], "tax_id": "DE1"},
            "customer": {"id": self.customer, "name": "A customer", "address": ["Somewhere"]}, "currency": currency, "period_end": "2026-11-01",
            "sections": shown, "subtotal": self.money(subtotal), "taxes": taxes, "total": self.money(total),
            "credit_applied": self.money(0 if is_note else credit), "amount_due": self.money(0 if is_note else total - credit), "notes": ["Thank you."],
            "cut": {"as_of": "2026-11-01T01:02:03.004+01:00", "complete_through": "2026-11-01T01:02:01.004+01:00", "certificate": {
                "number": json.loads(self.ledger.head)["number"], "sha256": self.ledger.digest}}}

    def proof(self):
        """The file, before it is signed."""
        return {
            "format": "tidemark invoice 1", "document": text(self.json), "certificate": {"head": self.ledger.head, "signature": self.ledger.signature},
            "customer": self.customer, "path": self.ledger.path(self.customer) if self.days else None, "days": self.days, "plans": self.plans,
            "subscriptions": self.terms, "parts": self.parts, "tax_rounding": None if self.service else self.rounding, "key": self.ledger.key.hex}


def sign(proof, key):
    """The file's bytes."""
    body = text(proof)[:-1].encode()
    return body + b',"signature":"' + key.sign(b"tidemark/invoice/1", body).encode() + b'"}\n'
