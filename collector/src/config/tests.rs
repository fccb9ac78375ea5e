mod secrets;

use super::reference::{SETTINGS, markdown};
use super::*;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let variables =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse(text, "c.toml", Path::new("/conf"), &variables)
}

/// A file and an environment -> what is wrong.
fn check(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let problems = parse(text, variables).map_or_else(|problems| problems, |_| Vec::new());
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected, "{text} {variables:?}");
}

#[test]
fn every_setting_of_the_reference_parses_at_its_default() {
    let mut text = String::new();
    let mut section = "";
    for setting in &SETTINGS {
        let key = match setting.key.split_once('.') {
            None => setting.key,
            Some((of, key)) => {
                if of != section {
                    text.push_str(&format!("[{of}]\n"));
                    section = of;
                }
                key
            }
        };
        text.push_str(&format!("{key} = {}\n", setting.default_toml()));
        assert!(markdown().contains(&format!("| `{}` |", setting.key)));
    }
    assert_eq!(parse(&text, &[]).unwrap(), parse("", &[]).unwrap());

    let by_environment: Vec<(String, &str)> =
        SETTINGS.iter().map(|setting| (setting.variable(), setting.default)).collect();
    let variables: Vec<(&str, &str)> =
        by_environment.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(parse("", &variables).unwrap(), parse("", &[]).unwrap());
}

#[test]
fn every_setting_refuses_nonsense_or_takes_any_text() {
    use super::reference::Kind;
    for setting in &SETTINGS {
        let refused = parse("", &[(&setting.variable(), "!!")]).is_err();
        let any_text = matches!(setting.kind, Kind::Path | Kind::PathOrUrl | Kind::Text);
        assert_eq!(refused, !any_text, "{}", setting.key);
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = parse(
        "[listen]\nhttp = \"127.0.0.1:1\"",
        &[("TIDEMARK_COLLECTOR__LISTEN__HTTP", "[::1]:2")],
    )
    .unwrap();
    assert_eq!(config.listen.http, "[::1]:2".parse().unwrap());
}

#[test]
fn tcp_listens_where_quic_does_or_elsewhere_or_not_at_all() {
    let check = |tcp: &str, expected: Option<&str>| {
        let config = parse(&format!("[listen]\nquic = \"[::1]:7\"\n{tcp}"), &[]).unwrap();
        assert_eq!(config.listen.tcp, expected.map(|address| address.parse().unwrap()), "{tcp}");
    };
    check("", Some("[::1]:7"));
    check("tcp = \"same\"", Some("[::1]:7"));
    check("tcp = \"off\"", None);
    check("tcp = \"127.0.0.1:8\"", Some("127.0.0.1:8"));
}

#[test]
fn paths_are_meant_from_where_they_are_written() {
    let text = "data_dir = \"data\"\ncatalog = \"/abs/c.toml\"";
    let config = parse(text, &[("TIDEMARK_COLLECTOR__TLS__KEY", "my.key")]).unwrap();
    assert_eq!(config.data_dir, Path::new("/conf/data"));
    assert_eq!(config.catalog, Path::new("/abs/c.toml"));
    assert_eq!(config.tls.key, Path::new("my.key"));
}

#[test]
fn problems_name_their_place_and_remedy() {
    check(
        "dta_dir = \"x\"\n[listen]\nquick = \"0.0.0.0:1\"\nhttp = \"localhost\"\n[ledger]\nfold_age = 5\ntail_bytes_max = \"1 KiB\"",
        &[
            ("TIDEMARK_COLLECTOR__LISTEN__QUICK", "x"),
            ("TIDEMARK_COLLECTOR__SESSION__IDLE_MAX", "soon"),
        ],
        &[
            "c.toml:1: the file has no key `dta_dir`; did you mean `data_dir`?",
            "c.toml:3: [listen] has no key `quick`; did you mean `quic`?",
            "the environment variable TIDEMARK_COLLECTOR__LISTEN__QUICK: it names no setting; did you mean TIDEMARK_COLLECTOR__LISTEN__QUIC?",
            "c.toml:4: `listen.http` is \"localhost\"; write an address and a port such as \"127.0.0.1:8130\" or \"[::]:8129\"",
            "the environment variable TIDEMARK_COLLECTOR__SESSION__IDLE_MAX: `session.idle_max` is \"soon\"; write a duration such as \"10s\" or \"250ms\", of at least 100ms",
            "c.toml:6: `ledger.fold_age` is \"5\"; write a duration such as \"10s\" or \"250ms\", of at least 10ms",
            "c.toml:7: `ledger.tail_bytes_max` is \"1 KiB\"; write a size such as \"16 MiB\", of at least 1048576 bytes",
        ],
    );
}

#[test]
fn tokens_come_from_file_and_environment() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "from-a-file-0123456789\n").unwrap();
    let text = "[[api.token]]\nname = \"a\"\ntoken = \"0123456789abcdef\"\n[[api.token]]\nname = \"b\"\ntoken_file = \"secret\"";
    let path = folder.path().join("secret").display().to_string();
    let variables = BTreeMap::from([(format!("{VARIABLE_PREFIX}API__TOKEN_FILE"), path)]);
    let config = Config::parse(text, "c.toml", folder.path(), &variables).unwrap();
    assert_eq!(
        config.tokens,
        [
            Token::of_secret("a", "0123456789abcdef"),
            Token::of_secret("b", "from-a-file-0123456789"),
            Token::of_secret("environment", "from-a-file-0123456789")
        ]
    );
    assert!(!format!("{config:?}").contains("0123456789"));
}

#[test]
fn a_token_may_be_a_digest_and_see_one_customer() {
    // printf %s 0123456789abcdef | sha256sum
    let digest = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
    let text =
        format!("[[api.token]]\nname = \"a\"\ntoken_sha256 = \"{digest}\"\ncustomer = \"acme\"");
    let config = parse(&text, &[]).unwrap();
    let customer = Some(CustomerId::parse("acme").unwrap());
    assert_eq!(config.tokens, [Token { customer, ..Token::of_secret("a", "0123456789abcdef") }]);
    check(
        "[[api.token]]\nname = \"a\"\ntoken_sha256 = \"9f\"\n[[api.token]]\nname = \"b\"\ntoken = \"0123456789abcdef\"\ncustomer = \"\"",
        &[],
        &[
            "c.toml:1: the `token_sha256` of \"a\" is not 64 hexadecimal digits; make one with `openssl rand -hex 32`, and \
             give it, its file or its SHA-256",
            "c.toml:7: the customer \"\" is empty; write a customer's id as the catalogue has it",
        ],
    );
}

#[test]
fn weak_and_ambiguous_tokens_are_refused() {
    let remedy = "make one with `openssl rand -hex 32`, and give it, its file or its SHA-256";
    check(
        "[[api.token]]\nname = \"a\"\ntoken = \"short\"",
        &[],
        &[&format!("c.toml:1: the token \"a\" has fewer than 16 characters; {remedy}")],
    );
    check(
        "[[api.token]]\nname = \"a\"\n",
        &[],
        &[&format!(
            "c.toml:1: the token has neither `token` nor `token_file` nor `token_sha256`; {remedy}"
        )],
    );
    check(
        "[[api.token]]\nname = \"a\"\ntoken_file = \"/nonexistent\"",
        &[],
        &[&format!(
            "c.toml:1: /nonexistent cannot be read: No such file or directory (os error 2); {remedy}"
        )],
    );
    let twice = "[[api.token]]\nname = \"a\"\ntoken = \"0123456789abcdef\"\n".repeat(2);
    check(&twice, &[], &["c.toml:4: two tokens are called \"a\"; give each its own name"]);
}

#[test]
fn the_example_shows_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/collector.toml");
    let text = fs::read_to_string(example).unwrap();
    let example = parse(&text, &[]).unwrap();
    let shown = parse(&text.replace("#= ", ""), &[]).unwrap();
    assert_eq!(shown, example);
    let mut defaults = parse("", &[]).unwrap();
    (defaults.catalog, defaults.tls) = (example.catalog.clone(), example.tls.clone());
    assert_eq!(example, defaults);
    for setting in &SETTINGS {
        let key = setting.key.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{key} = ")), "{key}");
    }
}
