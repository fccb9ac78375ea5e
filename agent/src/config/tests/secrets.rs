//! A secret is shown by nothing that formats a configuration, right or wrong.

use tidemark_common::time::Timestamp;
use tidemark_common::tls;

use super::*;
use crate::config::check;

const TOKEN: &str = "s3cr3t-token";
/// No key, but of the shape of one.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\\nczNjcjN0LWtleQ==\\n-----END PRIVATE KEY-----\\n";
const SECRETS: [&str; 3] = ["s3cr3t", "czNjcjN0", "BEGIN PRIVATE"];

#[track_caller]
fn hides(shown: &str) {
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

fn inline(rest: &str) -> String {
    format!(
        "[uplink]\ncollectors = [\"localhost:1\"]\nca_pem = \"x\"\ncertificate_pem = \"x\"\nkey_pem = \"{KEY}\"\n\
         [doors]\nhttp_token = \"{TOKEN}\"\n{rest}"
    )
}

#[test]
fn of_a_right_configuration() {
    let config = read(&inline(""), &[]).unwrap();
    hides(&format!("{config:?} {config:#?}"));
    let Config { doors, uplink, .. } = &config;
    hides(&format!("{doors:?} {uplink:?} {:?} {:?}", doors.http_token, uplink.key));
    let pem = uplink.pem().unwrap();
    hides(&format!("{pem:?} {pem:#?}"));
    let error = tls::client_config(&pem).unwrap_err();
    hides(&format!("{error} {error:?}"));
    let report = check::check(&config, Timestamp(0));
    assert!(!report.problems.is_empty(), "the key is none");
    hides(&format!("{report:?}"));
    report.problems.iter().for_each(|problem| hides(&problem.to_string()));
    assert!(report.would.iter().any(|line| line.ends_with("with a token")), "{:?}", report.would);
}

#[test]
fn of_a_wrong_one() {
    for wrong in [
        "http_token = 7\n",
        "udp = 7\n",
        "socket_mode = \"9\"\n[journal]\nbytes_max = \"1\"\n",
        "http_tokn = \"s3cr3t\"\n",
        "http_token_file = \"/nowhere\"\n",
        "[journal]\n= broken\n",
    ] {
        let error = read(&inline(wrong), &[]).expect_err(wrong);
        hides(&format!("{error} {error:?} {error:#?}"));
    }
    let variables =
        [("TIDEMARK_AGENT__DOORS__HTTP_TOKN", TOKEN), ("TIDEMARK_AGENT__UPLINK__KEY_PEM", KEY)];
    let error = read(&inline(""), &variables).unwrap_err();
    hides(&format!("{error} {error:?}"));
}

/// Who gives a key's text where its file is asked for must not find it in the log.
#[test]
fn of_one_that_gives_a_text_for_a_path() {
    let text = format!("{}key = \"{KEY}\"\n", LEAST.replace("key = \"agent.key\"\n", ""));
    let error = read(&text, &[]).unwrap_err();
    hides(&format!("{error} {error:?}"));
    assert!(error.to_string().contains("key_pem"), "{error}");
    for key in ["ca", "certificate"] {
        let text = LEAST.replace(&format!("{key} = \""), &format!("{key} = \"{KEY}"));
        let error = read(&text, &[]).unwrap_err();
        hides(&format!("{error} {error:?}"));
    }
}
