//! The house rules that a machine can check.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_tests::binaries::Program;

const LINES_MAX: usize = 1_000;
const LINES_TO_THINK: usize = 600;
/// Names that say nothing about what is inside.
const NAMES_REFUSED: [&str; 6] =
    ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "misc.rs", "manager.rs"];
/// Pure files, each with the folder of the same name: no I/O, no clock, no random numbers.
const PURE: [&str; 27] = [
    "common/src/id.rs",
    "common/src/code.rs",
    "common/src/time.rs",
    "common/src/quantity.rs",
    "common/src/batch.rs",
    "common/src/wire.rs",
    "agent/src/event.rs",
    "agent/src/parse.rs",
    "agent/src/aggregate.rs",
    "common/src/chunk.rs",
    "agent/src/seal.rs",
    "agent/src/session.rs",
    "agent/src/status.rs",
    "collector/src/session.rs",
    "collector/src/dedupe.rs",
    "collector/src/ledger/books.rs",
    "collector/src/ledger/entry.rs",
    "collector/src/invoice.rs",
    "collector/src/catalog.rs",
    "collector/src/period.rs",
    "collector/src/rating.rs",
    "collector/src/money.rs",
    "collector/src/usage.rs",
    "agent/src/intake/stream/frames.rs",
    "agent/src/intake/stream/lines.rs",
    "agent/src/uplink/chooser.rs",
    "collector/src/listen/pressure.rs",
];
const IMPURE: [&str; 14] = [
    "tokio",
    "quinn",
    "redb",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::",
    "SystemTime",
    "getrandom",
    "reqwest",
    "axum",
    "nix::",
];
/// What a test must not read or wait for; `tests/src/wait.rs` is the exception, and says why.
const CLOCKS: [&str; 3] = ["SystemTime::now", "Instant::now", "thread::sleep"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the workspace: its path from the root, and its text.
fn sources() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for folder in ["agent", "collector", "common", "tests"] {
        collect(&root(), Path::new(folder), &mut found)?;
    }
    ensure!(found.len() > 40, "only {} files were found", found.len());
    found.sort();
    Ok(found)
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) -> Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.to_str().context("file names are UTF-8")?.to_owned();
            found.push((name, std::fs::read_to_string(root.join(&path))?));
        }
    }
    Ok(())
}

/// Code without comments, up to the unit tests at its end.
fn code_of(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("tests/src/")
}

fn assert_none(what: &str, offenders: &[String]) -> Result<()> {
    ensure!(offenders.is_empty(), "{what}:\n{}", offenders.join("\n"));
    Ok(())
}

#[test]
fn files_are_short_and_named_for_what_they_hold() -> Result<()> {
    let mut offenders = Vec::new();
    for (path, text) in sources()? {
        let lines = text.lines().count();
        if lines > LINES_MAX {
            offenders.push(format!("{path} has {lines} lines, {LINES_MAX} is the end"));
        } else if lines > LINES_TO_THINK {
            println!("think about {path}: {lines} lines");
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if NAMES_REFUSED.contains(&name) {
            offenders.push(format!("{path}: name it for what it holds"));
        }
    }
    assert_none("house rules", &offenders)
}

#[test]
fn every_file_says_what_it_is() -> Result<()> {
    let silent =
        sources()?.into_iter().filter(|(path, text)| !text.starts_with("//!") && !is_test(path));
    let silent: Vec<String> = silent.map(|(path, _)| path).collect();
    assert_none("files without a //! head", &silent)
}

#[test]
fn pure_files_import_nothing_impure() -> Result<()> {
    let sources = sources()?;
    let mut offenders = Vec::new();
    for pure in PURE {
        let folder = format!("{}/", pure.trim_end_matches(".rs"));
        let mut found = false;
        for (path, text) in
            sources.iter().filter(|(path, _)| path == pure || path.starts_with(&folder))
        {
            found = true;
            if is_test(path) {
                continue;
            }
            let code = code_of(text);
            let impure = IMPURE.iter().filter(|word| code.contains(**word));
            offenders.extend(impure.map(|word| format!("{path} speaks of {word}")));
        }
        if !found {
            offenders.push(format!("{pure} is not there; mend the list"));
        }
    }
    assert_none("pure files", &offenders)
}

#[test]
fn tests_read_no_clock_and_do_not_sleep() -> Result<()> {
    let mut offenders = Vec::new();
    for (path, text) in sources()? {
        if !is_test(&path) || path == "tests/src/wait.rs" || path == "tests/tests/house.rs" {
            continue;
        }
        let found = CLOCKS.iter().filter(|word| text.contains(**word));
        offenders.extend(found.map(|word| format!("{path} uses {word}")));
        // Under tokio's paused clock nothing is waited for.
        if text.contains("time::sleep(") && !text.contains("start_paused") {
            offenders.push(format!("{path} sleeps"));
        }
    }
    assert_none("clocks in tests", &offenders)
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() -> Result<()> {
    let marks = [concat!("#[all", "ow("), concat!("#![all", "ow(")];
    let allowing =
        sources()?.into_iter().filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)));
    let allowing: Vec<String> = allowing.map(|(path, _)| path).collect();
    assert_none("files that allow lints", &allowing)
}

#[test]
fn the_top_level_is_fixed() -> Result<()> {
    const KNOWN: [&str; 14] = [
        "Cargo.toml",
        "Cargo.lock",
        "agent",
        "collector",
        "common",
        "deploy",
        "helm",
        "tests",
        "README.md",
        "LICENSE",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let mut strange = Vec::new();
    for entry in std::fs::read_dir(root())? {
        let name = entry?.file_name().into_string().ok().context("file names are UTF-8")?;
        if !KNOWN.contains(&name.as_str()) && !name.starts_with('.') && name != "target" {
            strange.push(name);
        }
    }
    assert_none("strangers at the top level", &strange)
}

#[test]
fn the_readme_names_commands_and_files_that_exist() -> Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md")).context("README.md")?;
    for command in ["deploy/demo", "tests/run"] {
        ensure!(readme.contains(command), "the README does not say `{command}`");
    }
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let mut missing = Vec::new();
    for word in readme.split(|letter: char| !is_part(letter)) {
        let word = word.trim_end_matches(['.', '/']);
        let ours = ["deploy/", "tests/", "agent/src", "collector/src", "common/src", "helm/"];
        let is_path = ours.iter().any(|folder| word.starts_with(folder));
        if is_path && !root().join(word).exists() {
            missing.push(word.to_owned());
        }
    }
    assert_none("the README names what is not there", &missing)
}

/// The reference is printed from the code; a page of the documentation holds it, word for word.
#[test]
fn the_configuration_reference_is_what_the_programs_print() -> Result<()> {
    let mut pages = std::fs::read_to_string(root().join("README.md")).context("README.md")?;
    if let Ok(folder) = std::fs::read_dir(root().join("deploy/docs")) {
        for page in folder {
            pages.push_str(&std::fs::read_to_string(page?.path())?);
        }
    }
    for program in [Program::Agent, Program::Collector] {
        let output = Command::new(program.path()?).arg("config-reference").output()?;
        let reference = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.success() && reference.len() > 500,
            "{}: {reference}",
            program.name()
        );
        ensure!(
            pages.contains(reference.trim()),
            "neither README.md nor deploy/docs holds what `{} config-reference` prints; put it there",
            program.name()
        );
    }
    Ok(())
}
