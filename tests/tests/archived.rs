//! Ledgers that are lost, or older than their archive: what was billed stays billed, once.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::random::Random;
use tidemark_tests::settings::{Ports, Settings, TOKEN};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::SEEN_WAIT;
use tidemark_tests::wait::{pause, unix_seconds, until};

const CATALOGUE: &str = r#"
seal_interval = "50ms"
[[meter]]
name = "api.calls"
aggregation = "sum"
[[plan]]
name = "standard"
currency = "EUR"
[[plan.price]]
meter = "api.calls"
unit_price = "0.01"
[[tax]]
name = "standard"
label = "VAT 19 %"
percent = "19"
[[seller]]
name = "main"
legal_name = "Tide GmbH"
address = ["Am Ufer 1", "20095 Hamburg"]
tax_id = "DE123456789"
tax = "standard"
[[customer]]
id = "acme"
plan = "standard"
[[customer]]
id = "birch"
plan = "standard"
[[customer]]
id = "cedar"
plan = "standard"
"#;
const DAY: u64 = 86_400;

/// An archive that is written when somebody waits for it, and at an orderly end: so tests know what it lacks.
pub(crate) fn settings() -> Result<Settings> {
    let token = toml::toml! { name = "tests" token = TOKEN role = "admin" };
    let settings = Settings::new(Ports::free()?, CATALOGUE)
        .collector("session.idle_max", "2s")
        .collector("archive.folder", "archive")
        .collector("archive.every", "1h")
        .collector("api.token", vec![token])
        .agent("shutdown_grace", "4s");
    Ok(settings)
}

/// The first day of this month in UTC, and its first second.
fn this_month(stack: &Stack) -> Result<(String, u64)> {
    let now = unix_seconds();
    let as_of = stack.api().streams()?.as_of;
    let (month, day) = as_of.get(..7).zip(as_of.get(8..10)).context("as_of is a date")?;
    let days_before = day.parse::<u64>()? - 1;
    Ok((format!("{month}-01"), now - now % DAY - days_before * DAY))
}

/// So many calls of each customer, in the last hour of the month before.
pub(crate) fn send(stack: &Stack, calls: u64) -> Result<()> {
    let (_, edge) = this_month(stack)?;
    let mut lines = Lines::to(&stack.path("events.socket"))?;
    let mut text = String::new();
    for customer in ["acme", "birch", "cedar"] {
        let line = format!("api.calls:1|c|#customer:{customer}|T{}\n", edge - 600);
        text.push_str(&line.repeat(usize::try_from(calls)?));
    }
    lines.send(text.as_bytes(), calls * 3)?;
    let refusals = lines.wait_durable()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

pub(crate) fn collector(stack: &Stack, arguments: &[&str], code: i32) -> Result<String> {
    let (seen, told) = stack.command(Program::Collector, arguments)?;
    ensure!(seen == Some(code), "{arguments:?} exits with {seen:?}: {told}");
    Ok(told)
}

/// Bills one customer; what it came to.
pub(crate) fn bill(stack: &Stack, customer: &str) -> Result<Value> {
    let (period_end, _) = this_month(stack)?;
    let arguments = ["bill", "--config", "collector.toml", "--json", "--period-end", &period_end];
    let told = collector(stack, &[&arguments[..], &["--customer", customer]].concat(), 0)?;
    Ok(serde_json::from_str(told.lines().next().context("an outcome")?)?)
}

/// The number and the total of each customer's only invoice, by customer.
fn invoices(stack: &Stack) -> Result<BTreeMap<String, (String, String)>> {
    let found = stack.api().get("/v1/invoices")?.json()?;
    let mut all = BTreeMap::new();
    for invoice in found["invoices"].as_array().context("invoices")? {
        let text = |field: &str| invoice[field].as_str().unwrap_or_default().to_owned();
        let before = all.insert(text("customer"), (text("number"), text("total")));
        ensure!(before.is_none(), "two invoices of one customer: {found}");
    }
    Ok(all)
}

pub(crate) fn numbers(stack: &Stack) -> Result<Vec<String>> {
    let mut numbers: Vec<_> = invoices(stack)?.into_values().map(|(number, _)| number).collect();
    numbers.sort();
    Ok(numbers)
}

pub(crate) fn wait_used(stack: &Stack, calls: u64) -> Result<()> {
    let (_, edge) = this_month(stack)?;
    until("the usage of the month before", SEEN_WAIT, || {
        let from = edge - 27 * DAY;
        let asked = stack.api().usage_between("acme", (from, edge), "");
        let used = asked.map_err(|error| format!("{error:#}"))?.usage;
        let sum = used.into_iter().find_map(|entry| entry.quantity).unwrap_or_default();
        if sum == calls.to_string() { Ok(()) } else { Err(format!("{sum} used")) }
    })
}

/// The key of certificates is kept elsewhere, as the operator's guide says.
pub(crate) fn lose(stack: &Stack) -> Result<()> {
    std::fs::copy(stack.path("ledger/certificate.key"), stack.path("kept.key"))?;
    Ok(std::fs::remove_dir_all(stack.path("ledger"))?)
}

pub(crate) fn put_key_back(stack: &Stack) -> Result<()> {
    std::fs::copy(stack.path("kept.key"), stack.path("ledger/certificate.key"))?;
    Ok(())
}

/// Every document's proof, and the newest certificate by the archive's batches.
fn verify(stack: &Stack) -> Result<()> {
    let keep = |target: &str, name: &str| -> Result<String> {
        let answer = stack.api().get(target)?;
        ensure!(answer.status == 200, "{target}: {}", answer.body);
        std::fs::write(stack.path(name), &answer.body)?;
        Ok(answer.body)
    };
    keep("/.well-known/tidemark-keys", "keys.json")?;
    for number in numbers(stack)? {
        keep(&format!("/v1/invoices/{number}/proof"), "invoice.json")?;
        collector(stack, &["verify", "invoice.json", "--keys", "keys.json"], 0)?;
    }
    let listed: Value = serde_json::from_str(&keep("/v1/certificates", "certificates.json")?)?;
    let last = listed["certificates"].as_array().context("certificates")?.len();
    keep(&format!("/v1/certificates/{last}"), "certificate.json")?;
    keep(&format!("/v1/certificates/{last}/streams"), "streams.txt")?;
    let batches = ["verify", "--batches", "archive", "--streams", "streams.txt"];
    let more = ["--keys", "keys.json", "certificate.json"];
    collector(stack, &[&batches[..], &more].concat(), 0).map(drop)
}

fn copy_of(stack: &Stack, number: &str) -> Result<Vec<u8>> {
    let path = stack.path("archive/documents").join(format!("{number}.json"));
    std::fs::read(&path).with_context(|| format!("{} is not there", path.display()))
}

fn counted(folder: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(folder)?.count())
}

#[test]
fn a_ledger_that_was_deleted_comes_back_from_its_archive() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(30)?;
        let acme = bill(stack, "acme")?;
        ensure!(acme["outcome"] == "issued", "{acme}");
        let first = acme["number"].as_str().context("a number")?.to_owned();
        // Told as issued: so the archive holds it.
        let stored = stack.api().get(&format!("/v1/invoices/{first}/document"))?.body;
        ensure!(copy_of(stack, &first)? == stored.as_bytes(), "the copy is another one");
        // Its last hours are in no archive.
        send(stack, 20)?;
        stack.wait_posted(90)?;
        let objects = counted(&stack.path("archive/manifests"))?;
        stack.kill_collector()?;
        lose(stack)?;
        ensure!(counted(&stack.path("archive/manifests"))? == objects, "it was archived after all");

        // A new, empty ledger would be in the way.
        let told = collector(stack, &["serve", "--config", "collector.toml"], 1)?;
        ensure!(told.contains("restore-from-archive"), "{told}");
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("sound") && told.contains("2 documents and"), "{told}");
        let told = collector(stack, &["restore-from-archive", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("next: start the collector"), "{told}");
        put_key_back(stack)?;
        stack.start_collector()?;
        // The agent sends again what the archive lacks.
        wait_used(stack, 30)?;
        stack.wait_posted(90)?;
        ensure!(bill(stack, "acme")?["number"] == first.as_str(), "acme has its invoice");
        let birch = bill(stack, "birch")?;
        ensure!(birch["outcome"] == "issued", "{birch}");
        let second = birch["number"].as_str().context("a number")?.to_owned();
        ensure!(numbers(stack)? == [first.clone(), second.clone()], "{:?}", numbers(stack)?);
        let next = |number: &str| -> Result<u64> {
            Ok(number.rsplit('-').next().context("a series")?.parse::<u64>()?)
        };
        ensure!(next(&second)? == next(&first)? + 1, "{second} after {first}");
        // What came after the first invoice is on the second one: 30 calls and 19 % of tax.
        ensure!(invoices(stack)?["birch"].1 == "0.36", "{:?}", invoices(stack)?);

        // And once more, of what both have written.
        stack.stop_collector()?;
        let told = collector(stack, &["fsck", "--config", "collector.toml"], 0)?;
        ensure!(told.ends_with("sound\n"), "{told}");
        lose(stack)?;
        collector(stack, &["restore-from-archive", "--config", "collector.toml"], 0)?;
        stack.start_collector()?;
        wait_used(stack, 30)?;
        // This time the key is lost too: another one is made, and the former one's signatures stay.
        collector(stack, &["keys", "rotate", "--config", "collector.toml"], 0)?;
        let cedar = bill(stack, "cedar")?;
        ensure!(
            next(cedar["number"].as_str().context("a number")?)? == next(&first)? + 2,
            "{cedar}"
        );
        ensure!(invoices(stack)?.len() == 3, "{:?}", invoices(stack)?);
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("sound") && told.contains("6 documents and"), "{told}");
        verify(stack)
    })
}

#[test]
fn nobody_is_billed_by_a_backup_that_is_older_than_the_archive() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(30)?;
        // The archive is begun before the backup.
        ensure!(bill(stack, "cedar")?["outcome"] == "issued", "cedar");
        collector(stack, &["backup", "--config", "collector.toml", "--to", "backup"], 0)?;
        let acme = bill(stack, "acme")?;
        send(stack, 20)?;
        stack.wait_posted(90)?;
        stack.kill_collector()?;
        std::fs::rename(stack.path("ledger"), stack.path("lost"))?;
        collector(stack, &["restore", "--from", "backup", "--config", "collector.toml"], 0)?;
        std::fs::copy(stack.path("lost/certificate.key"), stack.path("kept.key"))?;
        put_key_back(stack)?;
        stack.start_collector()?;
        wait_used(stack, 30)?;
        // The backup knows nothing of acme's invoice, whose number would be given again.
        let (period_end, _) = this_month(stack)?;
        let run = ["bill", "--config", "collector.toml", "--period-end", &period_end];
        let told = collector(stack, &run, 2)?;
        ensure!(told.contains("restore-from-archive --from"), "{told}");
        ensure!(numbers(stack)?.len() == 1, "{:?}", numbers(stack)?);
        let metrics = stack.collector_metrics()?;
        ensure!(
            metrics.count("tidemark_collector_archive_state{state=\"behind\"}")? == 1,
            "metrics"
        );

        stack.stop_collector()?;
        std::fs::rename(stack.path("ledger"), stack.path("older"))?;
        let again = ["restore-from-archive", "--config", "collector.toml", "--from", "older"];
        let told = collector(stack, &again, 0)?;
        ensure!(told.contains("1 documents"), "{told}");
        put_key_back(stack)?;
        stack.start_collector()?;
        let found = bill(stack, "acme")?;
        ensure!(
            found["outcome"] == "issued_before" && found["number"] == acme["number"],
            "{found}"
        );
        ensure!(bill(stack, "birch")?["outcome"] == "issued", "birch");
        let numbers = numbers(stack)?;
        ensure!(numbers.len() == 3, "{numbers:?}");
        for (number, due) in numbers.iter().zip(1..) {
            ensure!(
                number.ends_with(&format!("-{due:06}")) || number.ends_with(&due.to_string()),
                "{numbers:?}"
            );
        }
        wait_used(stack, 30)?;
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("sound"), "{told}");
        Ok(())
    })
}

#[test]
fn a_document_that_the_archive_lacks_is_not_told_as_issued() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(30)?;
        let first = bill(stack, "acme")?;
        ensure!(first["outcome"] == "issued", "{first}");
        // A file in the archive's place: nothing can be written, nor read.
        let (archive, away) = (stack.path("archive"), stack.path("away"));
        std::fs::rename(&archive, &away)?;
        std::fs::write(&archive, b"")?;
        let (period_end, _) = this_month(stack)?;
        let run = ["bill", "--config", "collector.toml", "--json", "--period-end", &period_end];
        let (code, told) =
            stack.command(Program::Collector, &[&run[..], &["--customer", "birch"]].concat())?;
        ensure!(code == Some(1), "{code:?}: {told}");
        let waits: Value = serde_json::from_str(told.lines().next().context("an outcome")?)?;
        ensure!(waits["outcome"] == "awaits_archive", "{told}");
        let number = waits["number"].as_str().context("a number")?.to_owned();
        ensure!(waits["problem"].as_str().is_some_and(|why| why.contains("archive")), "{waits}");
        // Usage goes on.
        send(stack, 5)?;
        stack.wait_posted(45)?;
        std::fs::remove_file(&archive)?;
        std::fs::rename(&away, &archive)?;
        let again = until("the archive to be written again", SEEN_WAIT, || {
            let again = bill(stack, "birch").map_err(|error| format!("{error:#}"))?;
            if again["outcome"] == "issued_before" { Ok(again) } else { Err(again.to_string()) }
        })?;
        ensure!(again["number"] == number.as_str(), "{again}");
        let stored = stack.api().get(&format!("/v1/invoices/{number}/document"))?.body;
        ensure!(copy_of(stack, &number)? == stored.as_bytes(), "the copy is another one");
        Ok(())
    })
}

#[test]
fn an_archive_that_is_given_up_is_begun_anew_elsewhere_with_all_there_is() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(30)?;
        let first = bill(stack, "acme")?["number"].clone();
        stack.stop_collector()?;
        // Without an archive such a ledger books nothing.
        let config = stack.path("collector.toml");
        let with = std::fs::read_to_string(&config)?;
        ensure!(with.contains("folder = \"archive\""), "{with}");
        std::fs::write(&config, with.replace("folder = \"archive\"", "folder = \"\""))?;
        stack.start_collector()?;
        let (period_end, _) = this_month(stack)?;
        let run = ["bill", "--config", "collector.toml", "--period-end", &period_end];
        let told = collector(stack, &run, 2)?;
        ensure!(told.contains("archive forget"), "{told}");
        stack.stop_collector()?;
        collector(stack, &["archive", "forget", "--config", "collector.toml"], 0)?;
        std::fs::rename(stack.path("archive"), stack.path("given-up"))?;
        std::fs::write(&config, with)?;
        stack.start_collector()?;
        let birch = bill(stack, "birch")?;
        ensure!(birch["outcome"] == "issued" && birch["number"] != first, "{birch}");
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(told.contains("sound") && told.contains("with 30 events"), "{told}");
        ensure!(copy_of(stack, first.as_str().context("a number")?).is_ok(), "the first document");
        Ok(())
    })
}

#[test]
fn a_collector_that_is_killed_while_it_archives_goes_on_with_one_chain() -> Result<()> {
    let settings = settings()?.collector("archive.every", "10ms");
    Stack::run(settings, |stack| {
        let mut random = Random::new(Random::fresh_seed());
        let rounds = 8;
        for round in 0..rounds {
            send(stack, 5)?;
            // Somewhere between the object, its manifest and the ledger's note.
            pause(Duration::from_millis(random.below(120)));
            if round % 3 == 2 {
                let _may_be_cut_short = bill(stack, ["acme", "birch", "cedar"][round / 3 % 3]);
            }
            stack.kill_collector()?;
            stack.start_collector()?;
        }
        let posted = 5 * 3 * u64::try_from(rounds)?;
        stack.wait_posted(posted)?;
        wait_used(stack, posted / 3)?;
        // The runs in between may all have come before the usage.
        let cedar = bill(stack, "cedar")?;
        ensure!(cedar["outcome"] == "issued", "{cedar}");
        let before = invoices(stack)?;
        stack.stop_collector()?;
        let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
        ensure!(
            told.contains("sound") && told.contains(&format!("with {posted} events")),
            "{told}"
        );
        lose(stack)?;
        collector(stack, &["restore-from-archive", "--config", "collector.toml"], 0)?;
        put_key_back(stack)?;
        stack.start_collector()?;
        wait_used(stack, posted / 3)?;
        ensure!(invoices(stack)? == before, "{:?} of {before:?}", invoices(stack)?);
        verify(stack)
    })
}
