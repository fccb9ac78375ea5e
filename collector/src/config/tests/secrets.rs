//! A secret is shown by nothing that formats a configuration, right or wrong.

use std::fs;

use super::*;
use crate::listen::Credentials;

const TOKEN: &str = "s3cr3t-token-of-the-dashboard";
/// No key, but of the shape of one.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nczNjcjN0LWtleQ==\n-----END PRIVATE KEY-----\n";
const SECRETS: [&str; 3] = ["s3cr3t", "czNjcjN0", "BEGIN PRIVATE"];

#[track_caller]
fn hides(shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

#[track_caller]
fn hides_problems(text: &str, variables: &[(&str, &str)]) {
    let problems = parse(text, variables).expect_err(text);
    hides(&format!("{problems:?} {problems:#?}"));
    problems.iter().for_each(|problem| hides(&problem.to_string()));
    let error = ConfigError::Problems(problems);
    hides(&format!("{error} {error:?}"));
}

fn inline(rest: &str) -> String {
    format!("[[api.token]]\nname = \"dashboard\"\ntoken = \"{TOKEN}\"\n{rest}")
}

#[test]
fn of_a_right_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("ca.pem", "none"), ("c.pem", "none"), ("c.key", KEY)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (ca, certificate, key) = (at("ca.pem"), at("c.pem"), at("c.key"));
    let tls = format!("[tls]\nca = {ca:?}\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let variables = [("TIDEMARK_COLLECTOR__API__TOKEN", "s3cr3t-token-of-the-environment")];
    let config = parse(&inline(&tls), &variables).unwrap();
    assert_eq!(config.tokens.len(), 2);
    hides(&format!("{config:?} {config:#?}"));
    let Config { tokens, tls, session, ledger, listen, .. } = &config;
    hides(&format!("{tokens:?} {tokens:#?} {tls:?} {session:?} {ledger:?} {listen:?}"));
    let pem = config.load_pem().unwrap();
    hides(&format!("{pem:?} {pem:#?}"));
    let error = Credentials::new(&pem).unwrap_err();
    hides(&format!("{error} {error:?}"));
}

#[test]
fn of_a_wrong_one() {
    for wrong in [
        "name2 = 7\n",
        "tokn = \"s3cr3t\"\n",
        "token_file = \"/nowhere\"\n",
        "[[api.token]]\nname = \"other\"\ntoken = \"s3cr3t\"\n",
        "[[api.token]]\nname = \"other\"\ntoken = \"s3cr3t-token-with a blank in it\"\n",
        "[[api.token]]\ntoken = \"s3cr3t-token-without-a-name\"\n",
        "[session]\nsessions_max = \"many\"\n",
        "[session]\n= broken\n",
        "token = \"s3cr3t-token-once-more-------\"\n",
    ] {
        hides_problems(&inline(wrong), &[]);
    }
    for variable in ["TIDEMARK_COLLECTOR__API__TOKEN", "TIDEMARK_COLLECTOR__API__TOKN"] {
        hides_problems("", &[(variable, "s3cr3t")]);
    }
}

#[test]
fn of_files_that_hold_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    for text in [
        &b"s3cr3t"[..],
        b"s3cr3t-token-of-two\ns3cr3t-token-lines",
        b"s3cr3t-token-of-no-text-\xff",
    ] {
        fs::write(&path, text).unwrap();
        let file = path.display().to_string();
        hides_problems(&format!("[[api.token]]\nname = \"d\"\ntoken_file = {file:?}\n"), &[]);
        hides_problems("", &[("TIDEMARK_COLLECTOR__API__TOKEN_FILE", &file)]);
    }
}

/// Who gives a key's text where its file is asked for must not find it in the log.
#[test]
fn of_one_that_gives_a_text_for_a_path() {
    for key in ["ca", "certificate", "key"] {
        hides_problems(&format!("[tls]\n{key} = \"{KEY}\"\n"), &[]);
    }
    hides_problems("", &[("TIDEMARK_COLLECTOR__TLS__KEY", KEY)]);
    hides_problems(&format!("[session]\nsessions_max = \"{KEY}\"\n"), &[]);
}
