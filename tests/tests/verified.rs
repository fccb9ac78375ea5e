//! Invoices and certificates of a running product, verified by the command and by the second verifier; keys that are
//! rotated; anchors; both programs killed in between.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidemark_collector::period::Zone;
use tidemark_collector::verify::command::{self, Audited};
use tidemark_collector::verify::{Keys, verify_invoice};
use tidemark_common::time::Timestamp;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::random::Random;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::wait::{unix_seconds, until};

const CATALOGUE: &str = r#"
[[meter]]
name = "api.calls"
aggregation = "sum"
dimensions = ["region"]
[[meter]]
name = "seats"
aggregation = "unique_count"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.fee]]
name = "Base"
amount = "10"
timing = "advance"
[[plan.price]]
meter = "api.calls"
where = { region = "eu" }
unit_price = "0.0004"
[[plan.price]]
meter = "api.calls"
model = "graduated"
[[plan.price.tier]]
up_to = "1000"
unit_price = "0"
[[plan.price.tier]]
unit_price = "0.002"
[[tax]]
name = "vat"
label = "VAT 19 %"
percent = "19"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
address = ["Am Ufer 1", "20095 Hamburg"]
tax = "vat"
[[customer]]
id = "acme"
plan = "standard"
[[customer]]
id = "globex"
plan = "standard"
"#;
const CONFIRMED_WAIT: Duration = Duration::from_secs(60);
/// Bytes of a file that are changed, one at a time.
const CHANGES: u64 = 500;
const EVENTS: u32 = 400;

/// A file of the running product's, by its path in the API.
fn fetch(stack: &Stack, target: &str, name: &str) -> Result<String> {
    let answer = stack.api().get(target)?;
    ensure!(answer.status == 200, "{target}: {} {}", answer.status, answer.body);
    fs::write(stack.path(name), &answer.body)?;
    Ok(answer.body)
}

/// Runs `verify`; its exit code and what it says.
fn verify(stack: &Stack, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    stack.command(Program::Collector, &[&["verify"], arguments].concat())
}

/// Sends usage of last month, and bills it once everything is confirmed.
fn bill(stack: &Stack) -> Result<Value> {
    let now = Timestamp(i64::try_from(unix_seconds())? * 1_000);
    let this = Zone::utc().month_of(now)?;
    let last = this.start.start().0 / 1_000 - 3_600;
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let mut text = String::new();
    for id in 0..EVENTS {
        let (customer, region) =
            [("acme", "eu"), ("acme", "us"), ("globex", "eu"), ("globex", "ap")]
                [usize::try_from(id % 4)?];
        let at = last - i64::from(id % 50) * 900;
        text.push_str(&format!(
            "api.calls:{}|c|#customer:{customer},region:{region},id:{id}|T{at}\n",
            100 + id
        ));
    }
    lines.send(text.as_bytes(), u64::from(EVENTS))?;
    ensure!(lines.wait_durable()?.is_empty(), "refused");
    stack.wait_posted(u64::from(EVENTS))?;
    let date = Zone::utc().rfc3339(this.start.start())[..10].to_owned();
    let arguments = ["bill", "--config", "collector.toml", "--period-end", &date, "--json"];
    until("everything is confirmed and billed", CONFIRMED_WAIT, || {
        let (code, told) =
            stack.command(Program::Collector, &arguments).map_err(|e| e.to_string())?;
        if code == Some(0) { Ok(()) } else { Err(told) }
    })?;
    Ok(stack.api().get("/v1/invoices")?.json()?["invoices"].clone())
}

#[test]
fn what_a_running_product_proves_is_verified_and_no_byte_can_be_changed() -> Result<()> {
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .collector("certificate.anchor_path", "anchors.jsonl")
        .collector("archive.folder", "archive")
        .collector("archive.every", "1s");
    Stack::run(settings, |stack| {
        let documents = bill(stack)?;
        let numbers: Vec<&str> = documents
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["number"].as_str())
            .collect();
        ensure!(numbers.len() == 2, "{documents}");
        let keys_text = fetch(stack, "/.well-known/tidemark-keys", "keys.json")?;
        let keys = Keys::read(keys_text.as_bytes())
            .map_err(|error| anyhow::Error::msg(error.to_string()))?;
        let mut random = Random::new(Random::fresh_seed());
        for number in &numbers {
            let file = format!("{number}.json");
            let proof = fetch(stack, &format!("/v1/invoices/{number}/proof"), &file)?;
            let (code, told) = verify(stack, &[&file, "--keys", "keys.json"])?;
            ensure!(code == Some(0), "{told}");
            for _ in 0..CHANGES {
                let mut changed = proof.clone().into_bytes();
                let at = usize::try_from(random.below(u64::try_from(changed.len())?))?;
                changed[at] ^= u8::try_from(1 + random.below(255))?;
                let verdict = verify_invoice(&changed, Some(&keys));
                ensure!(verdict.is_err(), "byte {at} of {number} was changed, and it is accepted");
            }
        }
        fetch(stack, "/v1/certificates/1", "certificate-1.json")?;
        fetch(stack, "/v1/certificates/1/streams", "streams-1.txt")?;
        audit(stack)?;
        keep(stack, &numbers)?;

        // Another key signs from now on, across a crash; what the former one signed stays valid.
        let (code, told) =
            stack.command(Program::Collector, &["keys", "rotate", "--config", "collector.toml"])?;
        ensure!(code == Some(0) && told.matches("\"from\"").count() == 2, "{told}");
        stack.kill_both()?;
        stack.start_both()?;
        let file = format!("{}-again.json", numbers[0]);
        fetch(stack, &format!("/v1/invoices/{}/proof", numbers[0]), &file)?;
        let (code, told) = verify(stack, &[&file, "--keys", "keys.json"])?;
        ensure!(code == Some(1) && told.contains("key"), "by the former keys: {code:?} {told}");
        fetch(stack, "/.well-known/tidemark-keys", "keys.json")?;
        let (code, told) = verify(stack, &[&file, "--keys", "keys.json"])?;
        ensure!(code == Some(0), "{told}");
        let first = format!("{}.json", numbers[0]);
        let (code, told) = verify(stack, &[&first, "--keys", "keys.json"])?;
        ensure!(code == Some(0), "{told}");
        until("the certificate is anchored", CONFIRMED_WAIT, || {
            let anchored = fs::read_to_string(stack.path("anchors.jsonl")).unwrap_or_default();
            if anchored.lines().count() == 1 { Ok(()) } else { Err(anchored) }
        })
    })
}

/// What the second verifier's honest operator made, and what was changed of it: both verifiers say the same.
#[test]
fn the_examples_are_judged_as_the_second_verifier_judges_them() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("verify/examples");
    let keys = Keys::read(&fs::read(folder.join("keys.json"))?);
    let keys = keys.map_err(|error| anyhow::Error::msg(error.to_string()))?;
    let mut judged = [0, 0];
    for file in fs::read_dir(&folder)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_valid = name.starts_with("valid-");
        if !is_valid && !name.starts_with("invalid-") {
            continue;
        }
        let verdict = verify_invoice(&fs::read(&path)?, Some(&keys));
        ensure!(verdict.is_ok() == is_valid, "{name}: {verdict:?}");
        judged[usize::from(is_valid)] += 1;
    }
    ensure!(judged[0] >= 20 && judged[1] >= 5, "{judged:?}");
    let [certificate, batches, streams, keys] =
        ["certificate.json", "archive", "streams.txt", "keys.json"].map(|name| folder.join(name));
    let audited = Audited { certificate: &certificate, batches: &batches, streams: Some(&streams) };
    let verdict = command::certificate(audited, Some(&keys), command::Form::Text)?;
    ensure!(verdict.accepted, "{}", verdict.told);
    Ok(())
}

/// The archive's batches come to what the certificate says; one byte of them changed, they do not.
fn audit(stack: &Stack) -> Result<()> {
    let batches = ["certificate-1.json", "--batches", "archive", "--keys", "keys.json"];
    let arguments = [&batches[..], &["--streams", "streams-1.txt"]].concat();
    let (code, told) = verify(stack, &arguments)?;
    ensure!(code == Some(0), "{told}");
    let folder = stack.path("archive").join("batches");
    let object = fs::read_dir(&folder)?.next().context("an object")??.path();
    let whole = fs::read(&object)?;
    let mut changed = whole.clone();
    *changed.last_mut().context("bytes")? ^= 1;
    fs::write(&object, changed)?;
    let (code, told) = verify(stack, &arguments)?;
    fs::write(&object, whole)?;
    ensure!(code == Some(1), "a changed archive: {code:?} {told}");
    Ok(())
}

/// For the second verifier, which `tests/run` lets judge them.
fn keep(stack: &Stack, numbers: &[&str]) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.scratch/artefacts");
    let _absent = fs::remove_dir_all(&folder).is_err();
    fs::create_dir_all(&folder).context("the folder for artefacts")?;
    for number in numbers {
        let file = format!("{number}.json");
        fs::copy(stack.path(&file), folder.join(format!("invoice-{file}")))?;
    }
    for file in ["keys.json", "certificate-1.json", "streams-1.txt"] {
        fs::copy(stack.path(file), folder.join(file))?;
    }
    let copied = Command::new("cp").arg("-r").arg(stack.path("archive")).arg(&folder).status()?;
    ensure!(copied.success(), "the archive cannot be copied");
    Ok(())
}
