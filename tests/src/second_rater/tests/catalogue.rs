//! The TOML, word for word.

use super::*;

const EXPECTED: &str = r#"[[meter]]
name = "m"
aggregation = "unique_count"
dimensions = ["kind", "region"]

[[meter]]
name = "n"
aggregation = "sum"
dimensions = ["kind", "region"]
negative = true

[[plan]]
name = "p"
currency = "KWD"
interval = "month"
rounding = "half_even"

[[plan.fee]]
name = "base"
amount = "10.5"

[[plan.price]]
meter = "m"
where = { kind = "a", region = "eu" }
included = "1"
minimum = "2"
maximum = "3"
unit_price = "0.5"

[[plan.price]]
meter = "m"
model = "per_unit"
unit_price = "0.5"

[[plan.price]]
meter = "m"
model = "package"
package_size = "10"
package_price = "4"

[[plan.price]]
meter = "m"
model = "graduated"

[[plan.price.tier]]
up_to = "10"
unit_price = "0"

[[plan.price.tier]]
unit_price = "2"
flat = "4"

[[plan.price]]
meter = "m"
model = "volume"

[[plan.price.tier]]
unit_price = "1"
flat = "0.0"

[[plan.price]]
meter = "n"
model = "percentage"
percent = "2.9"
per_event = "0.25"
"#;

#[test]
fn written() {
    let (included, minimum, maximum) =
        (Some("1".to_owned()), Some("2".to_owned()), Some("3".to_owned()));
    let first =
        Price { filter: pairs("region=eu kind=a"), included, minimum, maximum, ..per_unit("0.5") };
    let percentage = Model::Percentage { percent: "2.9".to_owned(), per_event: "0.25".to_owned() };
    let prices = vec![
        first,
        per_unit("0.5"),
        price(Model::Package { size: "10".to_owned(), price: "4".to_owned() }),
        price(Model::Graduated(tiers("10 0 0, - 2 4"))),
        price(Model::Volume(tiers("- 1 0.0"))),
        Price { meter: "n".to_owned(), ..price(percentage) },
    ];
    let fees = vec![Fee { name: "base".to_owned(), amount: "10.5".to_owned(), ..Fee::default() }];
    let plan = Plan { currency_places: 3, half_even: true, fees, prices, ..plan() };
    let aggregations =
        [("m".to_owned(), Aggregation::UniqueCount), ("n".to_owned(), Aggregation::Sum)];
    let written =
        crate::second_rater::catalogue::catalogue(&plan, &aggregations.into(), &["kind", "region"]);
    assert_eq!(written, EXPECTED);
    let read: toml::Table = written.parse().unwrap();
    assert_eq!(read["plan"][0]["price"][3]["tier"][1]["flat"].as_str(), Some("4"));
}
