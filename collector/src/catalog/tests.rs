#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use proptest::prelude::*;

use super::*;
use crate::grants::Otherwise;
use crate::period::Interval;

const GOOD: &str = r#"
seal_interval = "500ms"

[[meter]]
name = "llm.tokens"
aggregation = "sum"
dimensions = ["region", "model"]
unit = "token"
cloud_event = { type = "com.example.completion", quantity = "data.tokens", dimensions = { model = "data.model" } }

[[meter]]
name = "seats"
aggregation = "unique_count"
negative = true
deduplicate = "global"

[[customer]]
id = "acme"
name = "Acme Ltd"
time_zone = "Asia/Kolkata"
currency = "EUR"
plan = "standard"

[[customer]]
id = "zoë & sons"

[[plan]]
name = "standard"
currency = "EUR"

[[plan.price]]
meter = "llm.tokens"
unit_price = "0.000002"
"#;

fn parse(text: &str) -> Result<Catalog, Vec<Problem>> {
    Catalog::parse(text, "c.toml")
}

/// The file's text -> its problems, one a line.
fn check(text: &str, expected: &[&str]) {
    let problems = parse(text).map_or_else(|problems| problems, |_| Vec::new());
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected, "{text}");
}

#[test]
fn a_good_file_is_read_whole() {
    let catalog = parse(GOOD).unwrap();
    assert_eq!(catalog.seal_interval_millis, 500);
    let tokens = &catalog.meters[&MeterName::parse("llm.tokens").unwrap()];
    assert_eq!(tokens.dimensions, ["model", "region"]);
    assert_eq!((tokens.aggregation, tokens.unit.as_deref()), (Aggregation::Sum, Some("token")));
    let acme = CustomerId::parse("acme").unwrap();
    assert_eq!(catalog.zone_of(&acme).name(), "Asia/Kolkata");
    assert_eq!(catalog.zone_of(&CustomerId::parse("stranger").unwrap()).name(), "UTC");
    let [plan] = &catalog.plans["standard"][..] else { panic!("{:?}", catalog.plans) };
    assert_eq!((plan.interval, plan.rounding), (Interval::Month, None));
    assert_eq!(plan.prices.len(), 1);
    assert_eq!(catalog.subscriptions[&acme][0].plan, "standard");

    let unbilled = |customer: &str, meter: &str| {
        let customer = CustomerId::parse(customer).unwrap();
        catalog.unbilled(&customer, &MeterName::parse(meter).unwrap())
    };
    assert_eq!(unbilled("acme", "llm.tokens"), None);
    assert_eq!(unbilled("acme", "seats"), Some(Unbilled::Unpriced));
    assert_eq!(unbilled("acme", "other"), Some(Unbilled::UnknownMeter));
    assert_eq!(unbilled("zoë & sons", "llm.tokens"), Some(Unbilled::Unpriced));
    assert_eq!(unbilled("stranger", "llm.tokens"), Some(Unbilled::UnknownCustomer));
}

#[test]
fn the_example_is_good() {
    let text = include_str!("../../../deploy/examples/catalog.toml");
    let catalog = parse(text).unwrap();
    assert_eq!(catalog.plans["standard"][0].prices.len(), catalog.meters.len());
}

#[test]
fn identities_are_limited_by_pattern() {
    let text = "[identities]\ndefault = \"deny\"\n[[identity]]\nname = \"shop-*\"\n\
                meters = [\"api.*\"]\ncustomers = [\"acme\", \"eu-*\"]\n";
    let grants = parse(text).unwrap().grants;
    assert_eq!((grants.otherwise, grants.identities.len()), (Otherwise::Deny, 1));
    assert_eq!(*parse("").unwrap().grants, Grants::default(), "everybody may bill everything");
}

#[test]
fn an_identity_that_leaves_something_out_is_refused() {
    check(
        "[identities]\ndefault = \"alow\"\n[[identity]]\nname = \"a\"\nmeters = []\ncustomer = [\"*\"]\n",
        &[
            "c.toml:2: `identities.default` is \"alow\"; did you mean \"allow\"?",
            "c.toml:3: the identity lists no customers; add customers = [\"*\"] to allow all",
            "c.toml:3: the identity lists no meters; add meters = [\"*\"] to allow all",
            "c.toml:6: [identity] has no key `customer`; did you mean `customers`?",
        ],
    );
    check("[identities]\n", &["c.toml:1: [identities] has no `default`; add default = \"allow\""]);
    check(
        "[[identity]]\nname = \"\"\nmeters = [\"*\"]\ncustomers = [\"*\"]\n",
        &[
            "c.toml:2: the pattern \"\" is empty; write 1 to 128 bytes of printable text, in which `*` stands for \
           any text",
        ],
    );
}

#[test]
fn an_empty_file_is_an_empty_catalogue() {
    let catalog = parse("").unwrap();
    assert!(catalog.meters.is_empty() && catalog.customers.is_empty() && catalog.plans.is_empty());
    assert_eq!(catalog.rules_content().seal_interval_millis, 1_000);
}

#[test]
fn agents_get_the_rules_in_order() {
    let rules = parse(GOOD).unwrap().rules_content();
    assert_eq!((rules.version, rules.seal_interval_millis), (RulesVersion(0), 500));
    assert_eq!(rules.meter("llm.tokens").unwrap().dimensions, ["model", "region"]);
    assert!(rules.meter("seats").unwrap().negative);
    assert!(rules.deduplicates("seats") && !rules.deduplicates("llm.tokens"));
    let event = &rules.cloud_event("com.example.completion").unwrap().meters[0];
    assert_eq!(event.quantity.as_deref(), Some("data.tokens"));
    assert_eq!(event.dimensions[0].path, "data.model");
}

#[test]
fn what_is_not_toml_is_placed() {
    let problems = parse("[[meter]]\nname = \n").unwrap_err();
    assert_eq!((problems[0].file.as_str(), problems[0].line), ("c.toml", 2));
    let problems = parse("a = 1\na = 2\n").unwrap_err();
    assert_eq!(problems[0].line, 2);
}

#[test]
fn a_term_is_made_of_whole_periods() {
    let check_term = |more: &str, expected: &[&str]| {
        let plan = format!("[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n{more}");
        check(&plan, expected);
    };
    check_term("commitment = \"1\"\ncommitment_term = \"year\"", &[]);
    check_term("commitment = \"1\"\ninterval = \"quarter\"\ncommitment_term = \"year\"", &[]);
    check_term(
        "commitment = \"1\"\ninterval = \"week\"\ncommitment_term = \"year\"",
        &[
            "c.toml:1: the plan's `commitment_term` is a year, and its periods do not make one; use months in a quarter or a year, or quarters in a year",
        ],
    );
    check_term(
        "commitment_term = \"year\"",
        &[
            "c.toml:1: the plan has a `commitment_term` and no `commitment`; add the amount that is charged at least for a term",
        ],
    );
}

#[test]
fn unknown_keys_name_the_closest() {
    check(
        "seal_intervall = \"1s\"",
        &["c.toml:1: the file has no key `seal_intervall`; did you mean `seal_interval`?"],
    );
    check(
        "[[meter]]\nname = \"a\"\naggregation = \"sum\"\ndimension = []",
        &["c.toml:4: [meter] has no key `dimension`; did you mean `dimensions`?"],
    );
    check(
        "[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\ndiscount = 5",
        &[
            "c.toml:4: [plan] has no key `discount`; it knows commitment, commitment_term, currency, effective, fee, interval, name, price, rounding",
        ],
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = r#"
[[meter]]
name = "Bad Name"
aggregation = "summ"
[[meter]]
aggregation = "count"
[[customer]]
id = "a"
time_zone = "Mars/Olympus"
currency = "EURO"
[[plan]]
name = "p"
currency = "EUR"
[[plan.price]]
meter = "calls"
unit_price = 0.1
"#;
    check(
        text,
        &[
            "c.toml:3: the meter's name \"Bad Name\" holds 'B', which is not allowed there; write 1 to 64 of a-z, 0-9, `_`, `.` and `-`, beginning with a letter",
            "c.toml:4: \"summ\" is no aggregation; did you mean \"sum\"?",
            "c.toml:5: [meter] has no `name`; add name = \"api.calls\"",
            "c.toml:9: \"Mars/Olympus\" is not a time zone of the IANA database; write an IANA name such as \"Europe/Berlin\"",
            "c.toml:10: \"EURO\" is not an active currency code of ISO 4217; write a code such as \"EUR\"",
            "c.toml:15: there is no meter \"calls\"; add a [[meter]] with that name",
            "c.toml:16: `plan.price.unit_price` is of type float; write a string in quotes",
        ],
    );
}

#[test]
fn a_broken_meter_is_reported_once() {
    check(
        "[[meter]]\nname = \"a\"\naggregation = \"most\"\n[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n[[plan.price]]\nmeter = \"a\"\nunit_price = \"1\"",
        &[
            "c.toml:3: \"most\" is no aggregation; write one of sum, count, max, min, average, latest, unique_count",
        ],
    );
}

#[test]
fn no_tax_is_named_as_why_there_is_none() {
    check(
        "[[tax]]\nname = \"exempt\"\npercent = \"0\"",
        &[
            "c.toml:1: \"exempt\" says that there is no tax, so no tax has this name; give it another name",
        ],
    );
}

#[test]
fn duplicates_are_refused() {
    let meter = "[[meter]]\nname = \"a\"\naggregation = \"sum\"\ncloud_event = { type = \"t\" }\n";
    check(&format!("{meter}{meter}"), &["c.toml:5: the meter a stands twice; remove one of them"]);
    check(
        "[[customer]]\nid = \"x\"\n[[customer]]\nid = \"x\"",
        &["c.toml:3: the customer \"x\" stands twice; remove one of them"],
    );
    check(
        "[[meter]]\nname = \"a\"\naggregation = \"sum\"\ndimensions = [\"d\",\n\"d\"]",
        &["c.toml:5: the dimension \"d\" stands twice; remove one of them"],
    );
    let price = "[[plan.price]]\nmeter = \"a\"\nunit_price = \"1\"\n";
    check(
        &format!("{meter}[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n{price}{price}"),
        &[
            "c.toml:11: a price of the meter a before this one takes all that it could; remove one of them, or put the one with more in `where` first",
        ],
    );
}

#[test]
fn prices_are_exact_decimals_in_quotes() {
    let with_price = |price: &str| {
        format!(
            "[[meter]]\nname = \"a\"\naggregation = \"sum\"\n[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n[[plan.price]]\nmeter = \"a\"\nunit_price = {price}"
        )
    };
    let remedy = "write a decimal in quotes, such as \"0.002\", of at most 15 integer and 12 fraction digits";
    check(&with_price("\"0.000000000001\""), &[]);
    for (price, why) in [
        ("0.0000000000001", "has too many fraction digits"),
        ("-1", "is negative"),
        ("1e3", "is not a plain decimal number such as \"0.002\""),
    ] {
        check(
            &with_price(&format!("{price:?}")),
            &[&format!("c.toml:9: `unit_price` is {price:?}, which {why}; {remedy}")],
        );
    }
    check(
        &with_price("1"),
        &["c.toml:9: `plan.price.unit_price` is of type integer; write a string in quotes"],
    );
}

#[test]
fn cloud_events_name_kept_dimensions_and_sound_paths() {
    let with_event = |event: &str| {
        format!(
            "[[meter]]\nname = \"a\"\naggregation = \"sum\"\ndimensions = [\"d\"]\ncloud_event = {event}"
        )
    };
    check(
        &with_event("{ type = \"t\", unique = \"data.user\", dimensions = { d = \"source\" } }"),
        &[],
    );
    check(
        &with_event("{ type = \"t\", dimensions = { e = \"data.e\" } }"),
        &[
            "c.toml:5: the meter a does not keep the dimension \"e\"; list it in the meter's `dimensions`",
        ],
    );
    check(
        &with_event("{ type = \"t\", quantity = \"data..n\" }"),
        &[
            "c.toml:5: \"data..n\" is no path into a CloudEvent; write dotted names from the event's root, such as \"data.tokens\"",
        ],
    );
    check(
        &with_event("{ }"),
        &["c.toml:5: [meter.cloud_event] has no `type`; add type = \"com.example.api.called\""],
    );
    check(
        &with_event("\"t\""),
        &["c.toml:5: `meter.cloud_event` is of type string; write a table, [meter.cloud_event]"],
    );
}

#[test]
fn one_currency_for_all() {
    check(
        "[[customer]]\nid = \"x\"\ncurrency = \"USD\"\nplan = \"p\"\n[[plan]]\nname = \"p\"\ncurrency = \"EUR\"",
        &[
            "c.toml:4: the customer is billed in USD, and the plan's prices are in EUR; use a plan in the customer's currency",
        ],
    );
    let plans =
        "[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n[[plan]]\nname = \"q\"\ncurrency = \"USD\"\n";
    check(
        &format!(
            "{plans}[[customer]]\nid = \"x\"\nplan = \"p\"\n[[subscription]]\ncustomer = \"x\"\nplan = \"q\""
        ),
        &[
            "c.toml:12: the customer is billed in EUR, and the plan's prices are in USD; use a plan in the customer's currency",
        ],
    );
}

#[test]
fn rules_fit_one_frame() {
    let text: String = (0..METERS_MAX)
        .map(|n| {
            let dimensions: Vec<String> = (0..16).map(|d| format!("\"{n:060}{d:02}\"")).collect();
            format!(
                "[[meter]]\nname = \"m{n}\"\naggregation = \"sum\"\ndimensions = [{}]\n",
                dimensions.join(",")
            )
        })
        .collect();
    check(
        &text,
        &[
            "c.toml:1: the rules that agents are sent take more than 1044480 bytes; use fewer meters, or shorter names and paths",
        ],
    );
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in ".{0,200}") {
        let _judged = parse(&text);
    }

    /// Cuts and replacements in a good file reach deeper than random text does.
    #[test]
    fn any_damage_is_judged_without_panic(at in 0..GOOD.len(), length in 0_usize..40, filler in "[\\[\\]{}\"'=.a-z0-9\n#é]{0,8}") {
        let mut text = GOOD.to_owned();
        let floor = |mut at: usize| { while !text.is_char_boundary(at) { at -= 1; } at };
        let (start, end) = (floor(at), floor((at + length).min(GOOD.len())));
        text.replace_range(start..end.max(start), &filler);
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}

/// Catalogues one after the other, their meters as `name:aggregation` -> why the last one cannot follow.
fn check_follows(catalogs: &[&str], expected: Option<&str>) {
    let catalog = |meters: &str| {
        let meter = |meter: &str| {
            let (name, aggregation) = meter.split_once(':').unwrap();
            format!("[[meter]]\nname = \"{name}\"\naggregation = \"{aggregation}\"\n")
        };
        let text: String = meters.split_whitespace().map(meter).collect();
        Catalog::parse(&text, "c").unwrap()
    };
    let (last, before) = catalogs.split_last().unwrap();
    let mut had = Aggregations::new();
    for meters in before {
        had.extend(catalog(meters).aggregations());
    }
    let told = catalog(last).check_follows(&had).err().map(|refused| refused.to_string());
    match (told, expected) {
        (Some(told), Some(expected)) => assert!(told.contains(expected), "{told}"),
        (told, expected) => assert_eq!(told.as_deref(), expected, "{catalogs:?}"),
    }
}

#[test]
fn a_running_periods_usage_is_not_priced_anew() {
    check_follows(&["a:sum b:max", "a:sum b:max c:min"], None);
    check_follows(&["a:sum b:max", "a:sum"], None);
    check_follows(&["a:sum b:max", "a:sum b:sum"], Some("aggregation of b"));
    check_follows(&["a:sum b:max", "a:count b:sum"], Some("aggregation of a"));
    check_follows(&["a:sum b:max", "b:max", "a:max b:max"], Some("aggregation of a"));
    check_follows(&["a:sum", ""], Some("without any [[meter]]"));
    check_follows(&["", ""], None);
}

/// A plan's lines -> the problems with them.
fn check_plan(lines: &str, expected: &[&str]) {
    let meter = "[[meter]]\nname = \"a\"\naggregation = \"sum\"\ndimensions = [\"d\"]\n";
    check(&format!("{meter}[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n{lines}"), expected);
}

#[test]
fn models_say_what_they_need() {
    let price = "[[plan.price]]\nmeter = \"a\"\n";
    check_plan(
        &format!("{price}model = \"packages\""),
        &["c.toml:10: \"packages\" is no model; did you mean \"package\"?"],
    );
    check_plan(
        &format!("{price}model = \"package\"\npackage_size = \"0\"\nunit_price = \"1\""),
        &[
            "c.toml:8: [plan.price] has no `package_price`; add package_price = \"5.00\"",
            "c.toml:12: [plan.price] has no key `unit_price`; it knows included, maximum, meter, minimum, model, package_price, package_size, tax, where",
        ],
    );
    check_plan(
        &format!("{price}model = \"graduated\""),
        &["c.toml:8: the price has 0 tiers; write 1 to 100 [[plan.price.tier]] below it"],
    );
    check_plan(
        &format!("{price}model = \"percentage\"\npercent = \"2.00000000001\""),
        &[
            "c.toml:11: `percent` is \"2.00000000001\", which has too many fraction digits; write a decimal in \
             quotes, such as \"2.9\", of at most 15 integer and 10 fraction digits",
        ],
    );
    check_plan(
        &format!("{price}unit_price = \"1\"\nminimum = \"2\"\nmaximum = \"1\"\nincluded = \"-1\""),
        &[
            "c.toml:8: the price's `minimum` is above its `maximum`; keep it at or below",
            "c.toml:13: `included` is \"-1\", which is negative; write a decimal in quotes, such as \"1000\", of at \
             most 15 integer and 9 fraction digits",
        ],
    );
}

#[test]
fn tiers_ascend_and_the_last_is_open() {
    let tiers = |bounds: &[Option<&str>]| {
        let tier = |up_to: &Option<&str>| {
            let bound = up_to.map_or_else(String::new, |up_to| format!("up_to = \"{up_to}\"\n"));
            format!("[[plan.price.tier]]\n{bound}unit_price = \"1\"\n")
        };
        let tiers: String = bounds.iter().map(tier).collect();
        format!("[[plan.price]]\nmeter = \"a\"\nmodel = \"volume\"\n{tiers}")
    };
    check_plan(&tiers(&[None]), &[]);
    check_plan(&tiers(&[Some("1.5"), Some("2"), None]), &[]);
    check_plan(
        &tiers(&[Some("2"), Some("2"), None]),
        &[
            "c.toml:14: this tier's `up_to` is not above that of the tier before it; write the tiers in ascending order",
        ],
    );
    check_plan(
        &tiers(&[None, Some("2")]),
        &[
            "c.toml:11: this tier has no `up_to`, and is not the last; add one above the last tier's",
            "c.toml:13: the last tier has an `up_to`; leave it out: the last tier holds all above",
        ],
    );
}

#[test]
fn prices_are_told_apart_by_dimensions_that_are_kept() {
    let price =
        |filter: &str| format!("[[plan.price]]\nmeter = \"a\"\n{filter}unit_price = \"1\"\n");
    let narrow = price("where = { d = \"x\" }\n");
    check_plan(&format!("{narrow}{}{}", price("where = { d = \"y\" }\n"), price("")), &[]);
    check_plan(
        &format!("{}{narrow}", price("")),
        &[
            "c.toml:11: a price of the meter a before this one takes all that it could; remove one of them, or put the \
             one with more in `where` first",
        ],
    );
    check_plan(
        &price("where = { e = \"x\" }\n"),
        &[
            "c.toml:10: the meter a does not keep the dimension \"e\"; list it in the meter's `dimensions`",
        ],
    );
}

#[test]
fn versions_of_a_plan_follow_each_other() {
    let version = |more: &str| format!("[[plan]]\nname = \"p\"\ncurrency = \"EUR\"\n{more}");
    let later = "effective = \"2026-07-01T00:00:00Z\"\n";
    let catalog = parse(&format!("{}{}", version(later), version(""))).unwrap();
    let effective: Vec<_> =
        catalog.plans["p"].iter().map(|plan| plan.effective.is_some()).collect();
    assert_eq!(effective, [false, true]);
    check(
        &format!("{}{}", version(""), version("")),
        &[
            "c.toml:4: the plan \"p\" stands twice; remove one of them, or say with `effective` when the newer one begins",
        ],
    );
    check(
        &format!("{}{}", version(""), version(&format!("{later}interval = \"year\""))),
        &[
            "c.toml:4: this version of the plan \"p\" has another currency or interval than the one before; give it a \
             name of its own",
        ],
    );
    check(
        &version("effective = \"2026-07-01T00:01:00Z\""),
        &[
            "c.toml:4: \"2026-07-01T00:01:00Z\" is not a multiple of 15 minutes; the nearest are 2026-07-01T00:00:00Z and \
             2026-07-01T00:15:00Z; write a time on a quarter of an hour in quotes, such as \"2026-07-01T00:00:00+02:00\"",
        ],
    );
}

#[test]
fn subscriptions_are_of_customers_and_plans_that_exist() {
    let known = "[[plan]]\nname = \"basic\"\ncurrency = \"EUR\"\n[[customer]]\nid = \"acme\"\nplan = \"basi\"\n";
    let subscription = "[[subscription]]\ncustomer = \"acne\"\nplan = \"basic\"\n";
    check(
        &format!(
            "{known}billing_anchor = \"2026-02-30\"\n{subscription}start = \"2027-01-01T00:00:00Z\"\nend = \"2026-01-01T00:00:00Z\""
        ),
        &[
            "c.toml:7: \"2026-02-30\" is no date such as 2026-01-31, between 1970 and 2099; write the date of a period's \
             first day in quotes, such as \"2026-01-31\"",
            "c.toml:8: the subscription's `end` is not after its `start`; swap them",
            "c.toml:8: there is no customer \"acne\"; add a [[customer]] with that id",
        ],
    );
    check(known, &["c.toml:6: there is no plan \"basi\"; did you mean \"basic\"?"]);
}

#[test]
fn one_cloud_event_makes_several_meters() {
    let meter = |name: &str, path: &str| {
        format!(
            "[[meter]]\nname = \"{name}\"\naggregation = \"sum\"\ncloud_event = {{ type = \"t\", quantity = \"{path}\" }}\n"
        )
    };
    let catalog = parse(&(meter("input", "data.in") + &meter("output", "data.out"))).unwrap();
    let rules = catalog.rules_content();
    let meters: Vec<_> =
        rules.cloud_event("t").unwrap().meters.iter().map(|meter| meter.meter.as_str()).collect();
    assert_eq!(meters, ["input", "output"]);
}

const POLICY: &str = "[[policy]]\nname = \"spot\"\nsigned_by = \"the board\"\nkinds = [\"lost\", \"silent\"]\nidentities = [\"spot-*\", \"batch\"]\n\
                      lost_after = \"1h\"\nevents_per_stream_max = 100\nevents_total_max = 1000\n";

#[test]
fn policies_are_read_and_written_out_as_they_are() {
    let read = parse(POLICY).unwrap();
    let [policy] = &read.policies[..] else { panic!("{:?}", read.policies) };
    assert_eq!((policy.name.as_str(), policy.signed_by.as_str()), ("spot", "the board"));
    assert_eq!(policy.lost_after_millis, Some(3_600_000));
    assert_eq!((policy.events_per_stream_max, policy.events_total_max), (100, 1_000));
    assert!(policy.is_of("spot-7") && policy.is_of("batch") && !policy.is_of("web"));
    assert_eq!(parse(&read.to_toml()).unwrap(), read);
}

#[test]
fn a_policy_without_its_bounds_is_refused() {
    check(
        "[[policy]]\nname = \"a\"\nsigned_by = \"\"\nkinds = [\"lst\", \"totals_differ\"]\nlost_after = \"1s\"\nevents_total_max = -1\n",
        &[
            "c.toml:1: the policy has no `events_per_stream_max`; add events_per_stream_max = 10000",
            "c.toml:1: the policy lists no identities; add identities = [\"*\"] to allow all",
            "c.toml:3: `signed_by` is empty, too long or not printable; write 1 to 256 bytes of printable text",
            "c.toml:4: \"lst\" is no kind of finding that a policy covers; did you mean \"lost\"?",
            "c.toml:4: \"totals_differ\" is no kind of finding that a policy covers; write some of missing, backlog, \
             unconfirmed, silent, never_confirmed, lost, conflict, quarantine, closed_short",
            "c.toml:5: `lost_after` is \"1s\"; write a duration of at least \"1m\"",
            "c.toml:6: `events_total_max` is \"-1\"; write a whole number of events",
        ],
    );
    check(
        &POLICY.repeat(2),
        &["c.toml:9: two policies are called \"spot\"; give each its own name"],
    );
}
