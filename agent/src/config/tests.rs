//! Configurations in, problems out.

mod secrets;

use std::path::Path;

use super::reference::{self, KEYS};
use super::*;
use crate::intake::datagram::RECEIVE_BUFFER_BYTES_DEFAULT;
use crate::intake::socket_file::SOCKET_MODE_DEFAULT;

/// The least that must be given.
const LEAST: &str = "[uplink]\ncollectors = [\"localhost:8129\"]\nca = \"ca.pem\"\ncertificate = \"agent.pem\"\nkey = \"agent.key\"\n";

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::read(text, "agent.toml", Path::new("/etc/tidemark"), &variables)
}

/// `text` comes after the least, so its first line is line 6.
fn with(text: &str) -> Result<Config, ConfigError> {
    read(&format!("{LEAST}{text}"), &[])
}

/// Expects exactly these problems, each as "place | part of the message | part of the remedy".
#[track_caller]
fn expect(result: Result<Config, ConfigError>, expected: &[&str]) {
    let problems = result.expect_err("the configuration is wrong").problems;
    let shown = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(problems.len(), expected.len(), "{shown}");
    for (problem, expected) in problems.iter().zip(expected) {
        let parts: Vec<_> = expected.split(" | ").collect();
        assert_eq!(problem.place, parts[0], "{problem}");
        assert!(problem.message.contains(parts[1]), "{problem}\nexpected {}", parts[1]);
        assert!(problem.remedy.contains(parts[2]), "{problem}\nexpected {}", parts[2]);
    }
}

/// One wrong piece of text, one problem.
#[track_caller]
fn check(text: &str, expected: &str) {
    expect(with(text), &[expected]);
}

#[test]
fn the_least_configuration_has_all_defaults() {
    let config = read(LEAST, &[]).unwrap();
    assert_eq!(
        config.doors.udp,
        ["127.0.0.1:8125".parse().unwrap(), "[::1]:8125".parse().unwrap()]
    );
    assert_eq!(config.doors.events.as_deref(), Some(Path::new("/run/tidemark/events.socket")));
    assert_eq!(config.doors.http_token, None);
    assert_eq!(config.doors.socket_mode, SOCKET_MODE_DEFAULT);
    assert_eq!(config.doors.receive_buffer_bytes, RECEIVE_BUFFER_BYTES_DEFAULT);
    assert_eq!(config.naming, NamingOptions::default());
    assert_eq!(config.events.age_max, Duration::from_secs(35 * 24 * 3600));
    assert_eq!(config.journal.path, Path::new("/var/lib/tidemark-agent/journal.redb"));
    assert_eq!(config.journal.linger, Duration::from_millis(5));
    assert_eq!(config.journal.ids_max, 400_000);
    assert_eq!(config.uplink.collectors[0].to_string(), "localhost:8129");
    assert_eq!(config.uplink.server_name, None);
    assert_eq!(config.admin.listen, "127.0.0.1:8128".parse().unwrap());
    assert_eq!(config.shutdown_grace, Duration::from_secs(30));
    assert_eq!((config.log_format, config.log_level), (LogFormat::Text, LogLevel::Info));
}

/// Every key is in the reference and is read: [`reader::Reader`] asserts both ways. What is left to
/// show is that each documented default is the one at work.
#[test]
fn documented_defaults_are_the_defaults() {
    let implicit = read(LEAST, &[]).unwrap();
    for key in KEYS.iter().filter(|key| key.section() != "uplink") {
        let default = key.default.expect("only the uplink has keys without a default");
        let text = match key.section() {
            "" => format!("{} = {default}\n{LEAST}", key.name()),
            section => format!("{LEAST}[{section}]\n{} = {default}\n", key.name()),
        };
        assert_eq!(read(&text, &[]).as_ref(), Ok(&implicit), "{}", key.path);
    }
    for key in KEYS.iter().filter(|key| key.section() == "uplink") {
        if let Some(default) = key.default.filter(|default| *default != r#""""#) {
            assert_eq!(
                with(&format!("{} = {default}\n", key.name())).as_ref(),
                Ok(&implicit),
                "{}",
                key.path
            );
        }
    }
}

#[test]
fn the_reference_shows_every_key_once() {
    let shown = reference::markdown();
    for key in KEYS {
        let row = format!("| `{}` | {} |", key.name(), key.kind.words());
        assert!(shown.contains(&row), "{}", key.path);
        assert_eq!(KEYS.iter().filter(|other| other.path == key.path).count(), 1, "{}", key.path);
        assert!(!key.meaning.contains('|'), "{} would break the table", key.path);
    }
    for section in reference::sections() {
        assert_eq!(shown.matches(&format!("### `[{section}]`")).count(), 1, "{section}");
    }
}

#[test]
fn misspelt_names_are_errors_that_name_the_closest() {
    check(
        "[journal]\nlingr = \"5ms\"",
        "agent.toml:7 | no key `journal.lingr` | did you mean `linger` in [journal]?",
    );
    check(
        "[jurnal]\nlinger = \"5ms\"",
        "agent.toml:6 | no section [jurnal] | did you mean [journal]?",
    );
    check(
        "[doors]\nlinger = \"5ms\"",
        "agent.toml:7 | no key `doors.linger` | did you mean `linger` in [journal]?",
    );
    check(
        "shutdown_grace = \"5s\"",
        "agent.toml:6 | no key `uplink.shutdown_grace` | did you mean `shutdown_grace` at the top",
    );
    check(
        "[journal]\nzzzzzzzzzz = 1",
        "agent.toml:7 | no key `journal.zzzzzzzzzz` | config-reference",
    );
    expect(
        read(&format!("linger = 1\n{LEAST}"), &[]),
        &["agent.toml:1 | no key `linger` | `linger` in [journal]"],
    );
    expect(
        read(&format!("doors = 1\n{LEAST}"), &[]),
        &["agent.toml:1 | `doors` is a section | write [doors]"],
    );
}

#[test]
fn wrong_units_and_kinds_say_how_to_write_it() {
    check("[journal]\nlinger = 5", "agent.toml:7 | `journal.linger`: 5 has no unit | \"5ms\"");
    check(
        "[journal]\nlinger = \"5 ms\"",
        "agent.toml:7 | \"5 ms\" is not a duration | whole number and a unit",
    );
    check("[journal]\nlinger = true", "agent.toml:7 | is true or false | a duration with its unit");
    check("[journal]\nbytes_max = \"1gb\"", "agent.toml:7 | \"1gb\" is not a size | \"1GiB\"");
    check("[journal]\nbytes_max = 1.5", "agent.toml:7 | a number with a fraction | \"8MiB\"");
    check(
        "[journal]\nids_max = \"many\"",
        "agent.toml:7 | \"many\" is not a number | whole number",
    );
    check("[journal]\nids_max = -1", "agent.toml:7 | is not a number | 0 or more");
    check("[journal]\nids_max = 99999999999999999999", "agent.toml:7 | too large | whole number");
    check("[journal]\npath = \"\"", "agent.toml:7 | is empty | path of a file");
    check("[doors]\nudp = \"127.0.0.1:8125\"", "agent.toml:7 | is a text | list of addresses");
    check(
        "[doors]\nudp = [\"localhost:8125\"]",
        "agent.toml:7 | is not an address | 127.0.0.1:8125",
    );
    check(
        "[doors]\nudp = [\n\"127.0.0.1:1\",\n8125]",
        "agent.toml:9 | is a number | list of addresses",
    );
    check("[doors]\nsocket_mode = 660", "agent.toml:7 | is a number | in quotes");
    check("[doors]\nsocket_mode = \"999\"", "agent.toml:7 | is not a file mode | octal");
    check("[doors]\nevents = 5", "agent.toml:7 | is a number | path");
    check("[admin]\nlisten = \"8128\"", "agent.toml:7 | is not an address | 127.0.0.1:8125");
    expect(
        read(&format!("log_format = \"yaml\"\n{LEAST}"), &[]),
        &["agent.toml:1 | none of the choices | \"text\", \"json\""],
    );
    expect(
        read(&format!("log_level = 3\n{LEAST}"), &[]),
        &["agent.toml:1 | is a number | \"warn\""],
    );
}

#[test]
fn rules_between_keys() {
    check(
        "[journal]\nlinger = \"1s\"\nlinger_max = \"10ms\"",
        "agent.toml:7 | longer than linger_max | raise linger_max",
    );
    check("[journal]\nlinger_max = \"2s\"", "agent.toml:7 | too long | 1s");
    check("[journal]\nbytes_max = 1000", "agent.toml:7 | too small | 16MiB");
    check("[journal]\nopen_lines_max = 262145", "agent.toml:7 | too large | at most 262144");
    check("[journal]\nopen_lines_max = 0", "agent.toml:7 | no room | 1 or more");
    check(
        "[doors]\nudp = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
        "agent.toml:7 | given twice | remove one",
    );
    check(
        "[doors]\nevents = \"a\"\ndsd_stream = \"a\"",
        "agent.toml:7 | another door's socket | of its own",
    );
    check(
        "[naming]\nid_tag = \"customer\"",
        "agent.toml:7 | has this name already | a name of its own",
    );
    check("[naming]\nid_tag = \"a:b\"", "agent.toml:7 | cannot hold | of its own");
    check("[naming]\ncustomer_default = \"a\\nb\"", "agent.toml:7 | customer_default | printable");
    check(
        "[naming]\nname_patterns = [\"{meter}\"]",
        "agent.toml:7 | `naming.name_patterns` | {customer}.{meter}",
    );
    check("[naming]\nmetered = []", "agent.toml:7 | the list is empty | !datadog.*");
    check(
        "[forward]\naddress = \"localhost:8125\"",
        "agent.toml:7 | no address with a port | unix:///",
    );
    check("[doors]\npeer_uids = [\"root\"]", "agent.toml:7 | not a user's number | id -u");
    check("[doors]\npeer_uids = [-1]", "agent.toml:7 | not a user's number | id -u");
    check("ca_pem = \"x\"", "agent.toml:6 | `uplink.ca` is given too | one of the two");
    check("[events]\nnegative = [\"a?\"]", "agent.toml:7 | only * is special | credits.*");
    check("session_age_max = \"0s\"", "agent.toml:6 | too short | at least");
    assert!(with("[forward]\naddress = \"unix:///run/dsd.socket\"").is_ok());
    assert!(with("[doors]\nudp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nevents = \"\"\nunix_datagram = \"\"\ndsd_stream = \"\"").is_ok());
}

#[test]
fn all_problems_come_at_once() {
    let missing = ["uplink.collectors", "uplink.ca", "uplink.certificate", "uplink.key"];
    let expected = missing.map(|key| format!("agent.toml | `{key}`: is missing | "));
    expect(read("", &[]), &expected.each_ref().map(String::as_str));
    expect(
        with("[journal]\nlinger = 5\nbytes_max = \"x\"\n[door]"),
        &[
            "agent.toml:7 | no unit | ",
            "agent.toml:8 | not a size | ",
            "agent.toml:9 | no section [door] | [doors]",
        ],
    );
    expect(with("[journal\nlinger = 5"), &["agent.toml:6 | unclosed table | toml.io"]);
    check(
        "[journal]\nlinger = \"5ms\"\nlinger = \"6ms\"",
        "agent.toml:8 | duplicate key | toml.io",
    );
}

#[test]
fn the_environment_is_laid_over_the_file() {
    let config = read(
        &format!("log_level = \"warn\"\n{LEAST}[journal]\nlinger = \"1ms\"\n"),
        &[
            ("TIDEMARK_AGENT__LOG_LEVEL", "debug"),
            ("TIDEMARK_AGENT__JOURNAL__LINGER", "7ms"),
            ("TIDEMARK_AGENT__JOURNAL__IDS_MAX", "12"),
            ("TIDEMARK_AGENT__DOORS__UDP", "127.0.0.1:1, 127.0.0.1:2"),
            ("TIDEMARK_AGENT__DOORS__HTTP", ""),
            ("TIDEMARK_AGENT__DOORS__EVENTS", ""),
            ("TIDEMARK_AGENT__UPLINK__SERVER_NAME", "collector"),
        ],
    )
    .unwrap();
    assert_eq!(config.log_level, LogLevel::Debug);
    assert_eq!(config.journal.linger, Duration::from_millis(7));
    assert_eq!(config.journal.ids_max, 12);
    assert_eq!(config.doors.udp.len(), 2);
    assert_eq!((config.doors.http.len(), config.doors.events), (0, None));
    assert_eq!(config.uplink.server_name.as_deref(), Some("collector"));
}

#[test]
fn variables_are_checked_like_keys() {
    let check = |name, value, expected| expect(read(LEAST, &[(name, value)]), &[expected]);
    check(
        "TIDEMARK_AGENT__JOURNAL__LINGR",
        "1ms",
        "TIDEMARK_AGENT__JOURNAL__LINGR | no key `journal.lingr` | TIDEMARK_AGENT__JOURNAL__LINGER",
    );
    check("TIDEMARK_AGENT__ZZZ", "", "TIDEMARK_AGENT__ZZZ | no key `zzz` | unset it");
    check(
        "TIDEMARK_AGENT__JOURNAL__LINGER",
        "5",
        "TIDEMARK_AGENT__JOURNAL__LINGER | not a duration | \"5ms\"",
    );
    check(
        "TIDEMARK_AGENT__DOORS__UDP",
        "nonsense",
        "TIDEMARK_AGENT__DOORS__UDP | not an address | 127.0.0.1",
    );
    check(
        "TIDEMARK_AGENT__RULES__SEED",
        "[]",
        "TIDEMARK_AGENT__RULES__SEED | in the environment | file",
    );
    check(
        "TIDEMARK_AGENT__DOORS__HTTP_TOKEN_FILE",
        "/nowhere/token",
        "TIDEMARK_AGENT__DOORS__HTTP_TOKEN_FILE | /nowhere/token: failed to read | may read it",
    );
    expect(
        read(
            LEAST,
            &[
                ("TIDEMARK_AGENT__DOORS__HTTP_TOKEN", "a"),
                ("TIDEMARK_AGENT__DOORS__HTTP_TOKEN_FILE", "b"),
            ],
        ),
        &["TIDEMARK_AGENT__DOORS__HTTP_TOKEN_FILE | given twice | unset one"],
    );
}

#[test]
fn secrets_come_from_files_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    std::fs::write(folder.path().join("key.pem"), "PRIVATE\nKEY\n").unwrap();
    let read = |text: &str, variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::read(text, "agent.toml", folder.path(), &variables).unwrap()
    };
    let token =
        |config: &Config| config.doors.http_token.as_ref().map(|token| token.reveal().to_owned());

    let by_key = read(&format!("{LEAST}[doors]\nhttp_token_file = \"token\"\n"), &[]);
    assert_eq!(token(&by_key).as_deref(), Some("s3cret"));
    let by_variable = read(LEAST, &[("TIDEMARK_AGENT__DOORS__HTTP_TOKEN_FILE", "token")]);
    assert_eq!(token(&by_variable).as_deref(), Some("s3cret"));

    let least = LEAST.replace("key = \"agent.key\"", "");
    let inline = read(&least, &[("TIDEMARK_AGENT__UPLINK__KEY_PEM_FILE", "key.pem")]);
    assert_eq!(inline.uplink.key, PemSource::Inline("PRIVATE\nKEY".to_owned()));
    for config in [by_key, inline] {
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("PRIVATE"), "{shown}");
    }
}

#[test]
fn relative_paths_are_meant_from_the_files_folder() {
    let config =
        with("[journal]\npath = \"state/journal.redb\"\n[doors]\nevents = \"/run/e.socket\"")
            .unwrap();
    assert_eq!(config.journal.path, Path::new("/etc/tidemark/state/journal.redb"));
    assert_eq!(config.doors.events.as_deref(), Some(Path::new("/run/e.socket")));
    assert_eq!(config.uplink.ca, PemSource::File("/etc/tidemark/ca.pem".into()));
}

#[test]
fn seeds() {
    let config = with(
        "[[rules.seed]]\nmeter = \"b\"\ndimensions = [\"z\", \"a\"]\n[[rules.seed]]\nmeter = \"a\"\n",
    )
    .unwrap();
    let shown: Vec<_> = config
        .rules
        .seed
        .iter()
        .map(|seed| format!("{} {:?}", seed.meter, seed.dimensions))
        .collect();
    assert_eq!(shown, ["a []", r#"b ["a", "z"]"#]);

    check("[[rules.seed]]\nmeter = \"A\"", "agent.toml:7 | the meter \"A\" | a letter first");
    check("[[rules.seed]]\ndimensions = []", "agent.toml:6 | names no meter | meter = ");
    check("[[rules.seed]]\nmeter = 5", "agent.toml:7 | `meter` is a number | write meter");
    check(
        "[[rules.seed]]\nmeter = \"a\"\nkind = \"sum\"",
        "agent.toml:8 | no key `kind` | `dimensions`",
    );
    check(
        "[[rules.seed]]\nmeter = \"a\"\ndimensions = [\"\"]",
        "agent.toml:8 | dimension's name | 1 to 64",
    );
    check(
        "[[rules.seed]]\nmeter = \"a\"\n[[rules.seed]]\nmeter = \"a\"",
        "agent.toml:8 | a twice | remove one",
    );
    check("[rules]\nseed = \"a\"", "agent.toml:7 | is a text | [[rules.seed]]");
}

#[test]
fn the_example_is_valid_and_says_only_what_is_so() {
    let example = include_str!("../../../deploy/examples/agent.toml");
    let variables: Vec<(String, String)> = Vec::new();
    Config::read(example, "agent.toml", Path::new("/etc/tidemark"), &variables).unwrap();
    // Uncommented, its examples of defaults are the defaults.
    let uncommented: String = example
        .lines()
        .map(|line| line.strip_prefix("#= ").unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let config =
        Config::read(&uncommented, "agent.toml", Path::new("/etc/tidemark"), &variables).unwrap();
    let plain =
        Config::read(example, "agent.toml", Path::new("/etc/tidemark"), &variables).unwrap();
    assert_eq!(config, plain);
    for key in KEYS
        .iter()
        .filter(|key| key.default.is_some_and(|default| default != r#""""# && default != "[]"))
    {
        assert!(
            uncommented.contains(&format!("\n{} = ", key.name())),
            "the example lacks {}",
            key.path
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("none.toml: failed to read the file") && error.contains("check the path"),
        "{error}"
    );
}
