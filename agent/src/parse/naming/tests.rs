use super::super::tests::naming;
use super::*;

/// `expected` is `meter customer`, or the reason behind a `!`.
fn check(naming: &Naming, name: &str, customer: Option<&str>, expected: &str) {
    let resolved = match naming.resolve(name, customer) {
        Ok((meter, customer)) => format!("{meter} {customer}"),
        Err(reason) => format!("!{reason}"),
    };
    assert_eq!(resolved, expected, "{name} {customer:?}");
}

fn check_pattern(pattern: &str, name: &str, expected: &str) {
    check(
        &naming(|options| options.name_patterns = vec![pattern.to_owned()]),
        name,
        None,
        expected,
    );
}

#[test]
fn a_tag_names_the_customer_and_the_name_is_the_meter() {
    let plain = Naming::default();
    check(&plain, "api.calls", Some("acme"), "api.calls acme");
    check(&plain, "api.calls", None, "!no_customer");
    check(&plain, "api.calls", Some(""), "!bad_customer");
    check(&plain, "api.calls", Some("a\tb"), "!bad_customer");
    check(&plain, "api.calls", Some(&"x".repeat(129)), "!bad_customer");
    check(&plain, "Api", Some("acme"), "!bad_meter");
    check(&plain, "", Some("acme"), "!bad_meter");
}

#[test]
fn a_tag_beats_the_pattern_and_the_pattern_beats_the_default() {
    let all = naming(|options| {
        options.name_patterns = vec!["{customer}.{meter}".to_owned()];
        options.customer_default = Some("house".to_owned());
    });
    check(&all, "acme.calls", Some("other"), "acme.calls other");
    check(&all, "acme.calls", Some(""), "!bad_customer");
    check(&all, "acme.calls", None, "calls acme");
    check(&all, "calls", None, "calls house");
    check(&all, "Calls", None, "!bad_meter");
}

#[test]
fn name_patterns() {
    check_pattern("{customer}.{meter}", "acme.api.calls", "api.calls acme");
    check_pattern("{customer}.{meter}", "Acme Ltd.calls", "calls Acme Ltd");
    check_pattern("{customer}.{meter}", "acme", "!no_customer");
    check_pattern("{customer}.{meter}", ".calls", "!bad_meter");
    check_pattern("{customer}.{meter}", "acme.", "!no_customer");
    check_pattern("{customer}.{meter}", "acme.Calls", "!bad_meter");
    check_pattern("{customer}.{meter}", "a\u{7f}.calls", "!bad_customer");
    check_pattern("app.{customer}.{meter}.total", "app.acme.api.calls.total", "api.calls acme");
    check_pattern("app.{customer}.{meter}.total", "other.acme.api.calls.total", "!no_customer");
    check_pattern("app.{customer}.{meter}.total", "app.acme.api.calls", "!no_customer");
    check_pattern("{meter}.{customer}", "api.calls.acme", "api.calls acme");
    check_pattern("{meter}.by.{customer}", "calls.by.acme", "calls acme");
    check_pattern("{meter}.by.{customer}", "calls.by.a.b", "!no_customer");
    check_pattern("{customer}-{meter}", "acme-api-calls", "api-calls acme");
    check_pattern("{customer}-{meter}", "a.cme-calls", "!no_customer");
}

#[test]
fn the_first_matching_pattern_counts() {
    let naming = naming(|options| {
        options.name_patterns =
            vec!["usage.{customer}.{meter}".to_owned(), "{customer}.{meter}".to_owned()];
    });
    check(&naming, "usage.acme.calls", None, "calls acme");
    check(&naming, "acme.calls", None, "calls acme");
}

#[test]
fn metered_patterns() {
    let check = |patterns: &[&str], name: &str, expected: bool| {
        let naming = naming(|options| {
            options.metered = patterns.iter().map(|text| (*text).to_owned()).collect()
        });
        assert_eq!(naming.metered(name), expected, "{patterns:?} {name}");
    };
    let default = ["*", "!datadog.*"];
    check(&default, "api.calls", true);
    check(&default, "datadog.dogstatsd.client.metrics", false);
    check(&default, "datadog", true);
    check(&["billing.*"], "billing.calls", true);
    check(&["billing.*"], "billing.", true);
    check(&["billing.*"], "web.calls", false);
    check(&["billing"], "billing", true);
    check(&["billing"], "billing.calls", false);
    check(&["!web.*"], "billing", true);
    check(&["!web.*"], "web.hits", false);
    check(&["!web.*", "web.*"], "web.hits", false);
    check(&["*.calls"], "api.calls", true);
    check(&["*.calls"], "api.calls.slow", false);
    check(&["a*b*c"], "a.b.b.c", true);
    check(&["a*b*c"], "abc", true);
    check(&["a*b*c"], "acb", false);
    check(&["a*a"], "a", false);
    check(&["a*a"], "aa", true);
    check(&["**"], "", true);
    check(&["*a*a*"], "a", false);
}

#[test]
fn bad_options_are_named() {
    let check = |change: fn(&mut NamingOptions), expected: &str| {
        let mut options = NamingOptions::default();
        change(&mut options);
        let error = Naming::new(&options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        |options| options.customer_tag = String::new(),
        "customer_tag = \"\": a tag's name cannot be empty",
    );
    check(|options| options.id_tag = "a:b".to_owned(), "id_tag = \"a:b\"");
    check(
        |options| options.source_tag = "id".to_owned(),
        "source_tag = \"id\": another of the four",
    );
    check(|options| options.source_count_tag = "a,b".to_owned(), "source_count_tag = \"a,b\"");
    check(
        |options| options.customer_default = Some(String::new()),
        "customer_default = \"\": it is empty",
    );
    check(|options| options.metered = vec![], "metered: the list is empty");
    let patterns = ["", "!", "a b", "a?", "!!a", "a|b", "{meter}"];
    for pattern in patterns {
        let options = NamingOptions {
            metered: vec!["*".to_owned(), pattern.to_owned()],
            ..NamingOptions::default()
        };
        let error = Naming::new(&options).unwrap_err().to_string();
        assert!(error.contains(&format!("pattern {pattern:?}")), "{error}");
    }
    let patterns = [
        "",
        "{customer}",
        "{meter}",
        "{customer}{meter}",
        "{customer}.{meter}.{meter}",
        "{a}{customer}.{meter}",
        "|{customer}.{meter}",
    ];
    for pattern in patterns {
        let options =
            NamingOptions { name_patterns: vec![pattern.to_owned()], ..NamingOptions::default() };
        let error = Naming::new(&options).unwrap_err().to_string();
        assert!(error.contains(&format!("name pattern {pattern:?}")), "{error}");
    }
}
