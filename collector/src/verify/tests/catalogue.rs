//! A catalogue from a seed, as a person would write it.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use super::writer::Random;

pub(super) const CUSTOMER: &str = "acme \"Ü\" \\1";

fn decimal(random: &mut Random, whole: usize, places: usize) -> String {
    let digits = 10_usize.pow(u32::try_from(places).unwrap());
    let fraction = format!("{:0places$}", random.below(digits));
    format!("{}.{fraction}", random.below(whole))
}

/// Plans of every model, versions, subscriptions with trial, discount and prices of their own.
pub(super) fn catalog_text(random: &mut Random) -> String {
    let rounding = *random.pick(&["half_up", "half_even"]);
    let mut text = format!(
        "[[tax]]\nname = \"std\"\nlabel = \"VAT\"\npercent = \"19\"\n\
         [[tax]]\nname = \"red\"\nlabel = \"VAT 7\"\npercent = \"7.5\"\ninclusive = true\n\
         [[seller]]\nname = \"s\"\nlegal_name = \"Sell & Co\"\ntime_zone = \"UTC\"\nrounding = \"{rounding}\"\n\
         tax = \"std\"\nnotes = [\"Back\\\\slash\"]\n\
         [[customer]]\nid = {CUSTOMER:?}\nname = \"Acme\"\ntime_zone = \"Europe/Berlin\"\naddress = [\"1 Way\"]\n"
    );
    let meters = [
        ("calls", "sum"),
        ("tokens", "sum"),
        ("storage", "max"),
        ("seats", "latest"),
        ("users", "unique_count"),
        ("pay", "sum"),
        ("ping", "count"),
        ("load", "average"),
        ("low", "min"),
    ];
    for (meter, aggregation) in meters {
        text += &format!(
            "[[meter]]\nname = \"{meter}\"\naggregation = \"{aggregation}\"\ndimensions = [\"model\", \"region\"]\n\
             negative = true\nunit = \"{meter} unit\"\n"
        );
    }
    for (version, effective) in [("", ""), ("2", "effective = \"2026-10-16T00:00:00+02:00\"\n")] {
        text += &plan_text(random, version, effective);
    }
    text += &format!(
        "[[plan]]\nname = \"extra\"\ncurrency = \"EUR\"\ninterval = \"month\"\nrounding = \"half_even\"\n\
         commitment = \"5000\"\ncommitment_term = \"quarter\"\n\
         [[plan.fee]]\nname = \"Extra\"\namount = \"{}\"\ntax = \"red\"\n\
         [[plan.price]]\nmeter = \"calls\"\nunit_price = \"1\"\n[[plan.price]]\nmeter = \"ping\"\nunit_price = \"0.5\"\n",
        decimal(random, 90, 3)
    );
    let discount = ["", "discount = \"10\"\n", "discount = \"2.55\"\n"][random.below(3)];
    let trial = ["", "trial_end = \"2026-10-08T06:00:00Z\"\n"][random.below(2)];
    let start = ["", "start = \"2026-10-03T00:15:00Z\"\n"][random.below(2)];
    text += &format!(
        "[[subscription]]\ncustomer = {CUSTOMER:?}\nplan = \"base\"\n{start}{trial}{discount}\
         [[subscription.fee]]\nname = \"Support\"\namount = \"{}\"\n\
         [[subscription.price]]\nmeter = \"calls\"\nwhere = {{ region = \"eu\", model = \"l\" }}\nunit_price = \"{}\"\n\
         [[subscription]]\ncustomer = {CUSTOMER:?}\nplan = \"extra\"\n",
        decimal(random, 90, 2),
        decimal(random, 2, 6),
    );
    text
}

fn plan_text(random: &mut Random, version: &str, effective: &str) -> String {
    let mut text = format!(
        "[[plan]]\nname = \"base\"\ncurrency = \"EUR\"\n{effective}commitment = \"{}\"\n\
         [[plan.fee]]\nname = \"Base\"\namount = \"{}\"\ntiming = \"advance\"\n\
         [[plan.fee]]\nname = \"Support\"\namount = \"7\"\ntax = \"red\"\n",
        random.below(9000),
        decimal(random, 100, 2),
    );
    let tiers = |random: &mut Random| {
        format!(
            "[[plan.price.tier]]\nup_to = \"{}\"\nunit_price = \"{}\"\nflat = \"1.25\"\n\
             [[plan.price.tier]]\nup_to = \"{}\"\nunit_price = \"{}\"\n\
             [[plan.price.tier]]\nunit_price = \"{}\"\nflat = \"3\"\n",
            1 + random.below(50),
            decimal(random, 2, 4),
            60 + random.below(500),
            decimal(random, 2, 7),
            decimal(random, 1, 12),
        )
    };
    let mut price = |meter: &str, rest: String| {
        text += &format!("[[plan.price]]\nmeter = \"{meter}\"\n{rest}");
    };
    price(
        "tokens",
        format!(
            "where = {{ model = \"l\" }}\nmodel = \"graduated\"\ntax = \"red\"\n{}",
            tiers(random)
        ),
    );
    price(
        "tokens",
        format!("model = \"volume\"\nincluded = \"{}\"\n{}", random.below(40), tiers(random)),
    );
    price("storage", format!("unit_price = \"{}\"\nmaximum = \"900\"\n", decimal(random, 3, 5)));
    price("seats", format!("unit_price = \"{}\"\nincluded = \"1.5\"\n", decimal(random, 9, 2)));
    price("users", format!("unit_price = \"{}\"\nminimum = \"12.3456\"\n", decimal(random, 9, 2)));
    let percent = decimal(random, 5, 4);
    price(
        "pay",
        format!("model = \"percentage\"\npercent = \"{percent}\"\nper_event = \"0.25\"\n"),
    );
    let size = 1 + random.below(9);
    price(
        "ping",
        format!("model = \"package\"\npackage_size = \"{size}.5\"\npackage_price = \"2.005\"\n"),
    );
    price("load", format!("unit_price = \"{}\"\n", decimal(random, 9, 3)));
    price(
        "low",
        format!(
            "unit_price = \"0.7\"\ntax = \"{}\"\n",
            if version.is_empty() { "red" } else { "std" }
        ),
    );
    text
}
