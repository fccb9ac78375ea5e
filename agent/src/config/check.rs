//! What `check-config` finds out without starting anything: whether certificates fit together,
//! whether folders can be written, and what the agent would do.
//!
//! **Owns** the checks beyond the file's own text. **Does not own** the file's text
//! ([`Config::read`] judges it). It changes nothing on disk and listens nowhere.

use std::path::Path;

use nix::unistd::{AccessFlags, access};
use tidemark_common::time::Timestamp;
use tidemark_common::tls;

use super::{Config, PemSource, Problem};
use crate::intake::forward::is_own_door;

/// A certificate that ends sooner is worth a line.
const EXPIRY_MILLIS_MIN: i64 = 7 * 86_400_000;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What the agent would do, one line each.
    pub would: Vec<String>,
    /// What would keep it from doing so.
    pub problems: Vec<Problem>,
}

/// Looks at what `config` refers to.
#[must_use]
pub fn check(config: &Config, now: Timestamp) -> Report {
    let mut report = Report::default();
    doors(config, &mut report);
    forward(config, &mut report);
    journal(config, &mut report);
    uplink(config, now, &mut report);
    report
        .would
        .push(format!("answer /metrics, /healthz, /readyz and /status on {}", config.admin.listen));
    report
}

fn doors(config: &Config, report: &mut Report) {
    let doors = &config.doors;
    for address in &doors.udp {
        report.would.push(format!("take DogStatsD over UDP on {address}"));
    }
    let sockets = [
        ("DogStatsD datagrams", &doors.unix_datagram),
        ("DogStatsD streams", &doors.dsd_stream),
        ("acknowledged lines", &doors.events),
    ];
    for (what, path) in sockets {
        if let Some(path) = path {
            report.would.push(format!("take {what} on {}", path.display()));
            writable_folder(path, "for its socket", report);
        }
    }
    let guard = if doors.http_token.is_some() { ", with a token" } else { "" };
    for address in &doors.http {
        report.would.push(format!("take CloudEvents over HTTP on {address}{guard}"));
    }
    if report.would.is_empty() {
        report.problems.push(Problem {
            place: "[doors]".to_owned(),
            message: "every door is closed".to_owned(),
            remedy: "open at least one, or remove [doors] for the defaults".to_owned(),
        });
    }
}

fn forward(config: &Config, report: &mut Report) {
    let Some(address) = &config.forward else { return };
    report.would.push(format!("forward what is not metered to {address}"));
    if is_own_door(address, &config.doors.udp, config.doors.unix_datagram.as_deref()) {
        report.problems.push(Problem {
            place: "forward.address".to_owned(),
            message: format!(
                "{address} is this agent's own door: what is not metered would go round in circles"
            ),
            remedy: "name another server, or leave it empty".to_owned(),
        });
    }
}

fn journal(config: &Config, report: &mut Report) {
    let path = &config.journal.path;
    let bytes_max = config.journal.bytes_max;
    if path.exists() {
        report
            .would
            .push(format!("go on with the journal {}, at most {bytes_max} bytes", path.display()));
        if let Err(error) = access(path, AccessFlags::R_OK | AccessFlags::W_OK) {
            report.problems.push(Problem {
                place: path.display().to_string(),
                message: format!("this user may not read and write the journal: {error}"),
                remedy: "check as the user that the agent runs as, or give that user the file"
                    .to_owned(),
            });
        }
    } else {
        report
            .would
            .push(format!("make the journal {}, at most {bytes_max} bytes", path.display()));
    }
    writable_folder(path, "for the journal", report);
}

/// Notes if `file` could not be made, its folder included: the agent makes folders that are missing.
fn writable_folder(file: &Path, purpose: &str, report: &mut Report) {
    let here = Path::new(".");
    let existing =
        file.ancestors().skip(1).find(|folder| folder.exists() || folder.as_os_str().is_empty());
    let folder = existing.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(here);
    let message = if !folder.is_dir() {
        format!("is no folder, and one is needed {purpose}")
    } else if let Err(error) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        format!("this user may not make files here, as is needed {purpose}: {error}")
    } else {
        return;
    };
    report.problems.push(Problem {
        place: folder.display().to_string(),
        message,
        remedy: "check as the user that the agent runs as; give that user the folder, or configure another path".to_owned(),
    });
}

fn uplink(config: &Config, now: Timestamp, report: &mut Report) {
    let uplink = &config.uplink;
    let pem = match uplink.pem() {
        Ok(pem) => pem,
        Err(error) => {
            report.problems.extend(error.problems);
            return;
        }
    };
    let place = |source: &PemSource, key: &str| match source {
        PemSource::File(path) => path.display().to_string(),
        PemSource::Inline(_) => format!("uplink.{key}"),
    };
    let own = place(&uplink.certificate, "certificate_pem");
    let remedy =
        "`tidemark-collector dev-certs DIR` makes certificates that fit together, for local use";
    let mut problem = |message: String, remedy: &str| {
        report.problems.push(Problem { place: own.clone(), message, remedy: remedy.to_owned() });
    };
    if let Err(error) = tls::client_config(&pem) {
        problem(error.to_string(), remedy);
        return;
    }
    let read =
        tls::certificates(&pem.certificate).and_then(|chain| Ok((tls::agent_name(&chain)?, chain)));
    let (name, chain) = match read {
        Ok(read) => read,
        Err(error) => return problem(error.to_string(), remedy),
    };
    let left = chain.first().and_then(tls::not_after).map(|end| end.millis_since(now));
    match left {
        Some(left) if left < 0 => problem(
            "the agent's certificate has expired".to_owned(),
            "renew it; the agent reads the new one at its next connection",
        ),
        Some(left) if left < EXPIRY_MILLIS_MIN => {
            report.would.push(format!(
                "(the agent's certificate expires within {} days)",
                (left / 86_400_000).saturating_add(1)
            ));
        }
        Some(_) | None => {}
    }
    for (index, collector) in uplink.collectors.iter().enumerate() {
        let server = uplink.server_name.as_deref().unwrap_or(&collector.host);
        report.would.push(match index {
            0 => format!("ship to {collector} as {name}, expecting a certificate for {server}"),
            _ => format!("or to {collector}, expecting a certificate for {server}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnValue, IsCa, KeyPair, SanType,
    };

    const NOW: Timestamp = Timestamp(1_770_000_000_000);

    /// A CA, and a certificate with these URI names that it signed, good until `year`.
    fn certificates(folder: &Path, uris: &[&str], year: i32) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, DnValue::Utf8String("test".to_owned()));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join("ca.pem"), ca.as_ref().pem()).unwrap();
        std::fs::write(folder.join("agent.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("agent.key"), key.serialize_pem()).unwrap();
    }

    const TEXT: &str = "[uplink]\ncollectors = [\"collector.test:8129\", \"other.test:8129\"]\nca = \"ca.pem\"\n\
         certificate = \"agent.pem\"\nkey = \"agent.key\"\n[journal]\npath = \"journal.redb\"\n\
         [doors]\nevents = \"events.socket\"\nunix_datagram = \"\"\ndsd_stream = \"\"\n";

    fn report_at(folder: &Path, text: &str, now: Timestamp) -> Report {
        check(&Config::read(text, "agent.toml", folder, &[]).unwrap(), now)
    }

    fn report(folder: &Path) -> Report {
        report_at(folder, TEXT, NOW)
    }

    /// The parts of the one problem that is expected.
    #[track_caller]
    fn one_problem(report: &Report, place: &str, message: &str) {
        let [problem] = report.problems.as_slice() else { panic!("{report:?}") };
        assert!(problem.place.ends_with(place) && problem.message.contains(message), "{problem}");
        assert!(!problem.remedy.is_empty(), "{problem}");
    }

    #[test]
    fn a_good_configuration_says_what_it_would_do() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["tidemark://agent/web-1"], 2090);
        let report = report(folder.path());
        assert_eq!(report.problems, []);
        let said = report.would.join("\n").replace(folder.path().to_str().unwrap(), "FOLDER");
        for line in [
            "take DogStatsD over UDP on [::1]:8125",
            "take acknowledged lines on FOLDER/events.socket",
            "take CloudEvents over HTTP on 127.0.0.1:8127",
            "make the journal FOLDER/journal.redb, at most 2147483648 bytes",
            "ship to collector.test:8129 as web-1, expecting a certificate for collector.test",
            "or to other.test:8129, expecting a certificate for other.test",
            "answer /metrics, /healthz, /readyz and /status on 127.0.0.1:8128",
        ] {
            assert!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
        }
        assert!(!folder.path().join("journal.redb").exists());
    }

    #[test]
    fn certificates_that_do_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        certificates(path, &["tidemark://agent/web-1"], 2020);
        one_problem(&report(path), "agent.pem", "has expired");
        certificates(path, &["https://example.com"], 2090);
        one_problem(&report(path), "agent.pem", "no URI name tidemark://agent/NAME");
        certificates(path, &["tidemark://agent/a"], 2090);
        std::fs::write(path.join("agent.key"), KeyPair::generate().unwrap().serialize_pem())
            .unwrap();
        one_problem(&report(path), "agent.pem", "failed to use the certificate");
        std::fs::write(path.join("agent.key"), "nonsense").unwrap();
        one_problem(&report(path), "agent.pem", "private key");
        std::fs::remove_file(path.join("agent.key")).unwrap();
        one_problem(&report(path), "agent.key", "failed to read the file");
    }

    #[test]
    fn a_certificate_that_ends_soon_is_said() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["tidemark://agent/a"], 2026);
        // 2026-01-01, less a day.
        let report = report_at(folder.path(), TEXT, Timestamp(1_767_225_600_000 - 86_400_000));
        assert_eq!(report.problems, []);
        assert!(
            report.would.iter().any(|line| line.contains("expires within 2 days")),
            "{report:?}"
        );
    }

    #[test]
    fn folders() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["tidemark://agent/a"], 2090);
        let missing = TEXT.replace("journal.redb", "to/be/made/journal.redb");
        assert_eq!(report_at(folder.path(), &missing, NOW).problems, []);
        let journal = TEXT.replace("journal.redb", "ca.pem/journal.redb");
        one_problem(
            &report_at(folder.path(), &journal, NOW),
            "ca.pem",
            "is no folder, and one is needed for the journal",
        );
        let socket = TEXT.replace("events.socket", "agent.pem/events.socket");
        one_problem(
            &report_at(folder.path(), &socket, NOW),
            "agent.pem",
            "one is needed for its socket",
        );
    }

    #[test]
    fn an_agent_without_doors_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path(), &["tidemark://agent/a"], 2090);
        let closed = TEXT.replace("events.socket", "") + "udp = []\nhttp = []\n";
        one_problem(&report_at(folder.path(), &closed, NOW), "[doors]", "every door is closed");
    }
}
