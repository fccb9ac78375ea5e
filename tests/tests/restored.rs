//! Disks that come back older than they were, and journals that meet another ledger.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::doors::Lines;
use tidemark_tests::process::Process;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{CATALOGUE, SEEN_WAIT, send, used};
use tidemark_tests::wait::{pause, unix_seconds, until};

/// What the agent exits with after a conflict, so that a supervisor need not start it again.
const EXIT_CONFLICT: i32 = 3;
const STOPPED: &str = "tidemark_agent_session_state{state=\"stopped\"}";

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn settings() -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Ok(settings.collector("session.idle_max", "2s").agent("shutdown_grace", "4s"))
}

#[test]
fn a_ledger_restored_from_a_backup_asks_again_and_heals() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(10)?;
        stack.stop_collector()?;
        copy_folder(&stack.path("ledger"), &stack.path("backup"))?;
        stack.start_collector()?;
        send(stack, 20)?;
        stack.wait_posted(30)?;
        stack.stop_collector()?;

        std::fs::rename(stack.path("ledger"), stack.path("lost"))?;
        copy_folder(&stack.path("backup"), &stack.path("ledger"))?;
        stack.start_collector()?;
        until("the agent to send again what the backup lacks", SEEN_WAIT, || match used(stack) {
            Ok(used) if used == "30" => Ok(()),
            Ok(used) => Err(format!("{used} used")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        send(stack, 5)?;
        stack.wait_posted(35)?;
        ensure!(used(stack)? == "35", "{}", used(stack)?);
        Ok(())
    })
}

/// Runs the collector's program to its end; gives what it printed.
fn collector(arguments: &[&str]) -> Result<String> {
    let output = Command::new(Program::Collector.path()?).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {}: {told}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the folder's name is UTF-8")
}

/// When the newest backup was begun, and its size, as the collector's metrics say.
fn newest_backup(stack: &Stack) -> Result<(u64, u64)> {
    let metrics = stack.collector_metrics()?;
    let bytes = metrics.count("tidemark_collector_backup_last_bytes")?;
    Ok((metrics.count("tidemark_collector_backup_last_seconds")?, bytes))
}

#[test]
fn a_backup_of_a_running_collector_is_restored_and_heals() -> Result<()> {
    Stack::run(settings()?, |stack| {
        let (ledger, backup) = (stack.path("ledger"), stack.path("backup"));
        let (ledger, backup) = (text(&ledger)?, text(&backup)?);
        send(stack, 10)?;
        stack.wait_posted(10)?;
        // While it runs, in the middle of traffic.
        let mut lines = Lines::to(&stack.path("events.socket"))?;
        for _ in 0..20 {
            lines.send("api.calls:1|c|#customer:acme\n".repeat(100).as_bytes(), 100)?;
        }
        ensure!(newest_backup(stack)? == (0, 0), "none was made");
        let config = stack.path("collector.toml");
        let made = collector(&["backup", "--config", text(&config)?, "--to", backup])?;
        ensure!(made.contains("incarnation"), "{made}");
        let (at, bytes) = newest_backup(stack)?;
        let age = unix_seconds().saturating_sub(at);
        ensure!(age < 600 && bytes > 0, "{bytes} bytes, {age} s ago");
        let sound = collector(&["restore", "--check", "--from", backup])?;
        ensure!(sound.starts_with("ok: ledger"), "{sound}");
        ensure!(lines.wait_durable()?.is_empty(), "something was refused");
        send(stack, 20)?;
        stack.wait_posted(2_030)?;
        let fences = fence(stack)?;
        stack.stop_collector()?;
        // Stopped: the same, from the file.
        collector(&["backup", "--data-dir", ledger, "--to", text(&stack.path("later"))?])?;

        std::fs::rename(ledger, stack.path("lost"))?;
        // Whoever moves only the ledger's files away leaves this.
        std::fs::create_dir(ledger)?;
        std::fs::copy(stack.path("lost/backup.json"), stack.path("ledger/backup.json"))?;
        let restored = collector(&["restore", "--from", backup, "--data-dir", ledger])?;
        ensure!(restored.contains("next: start the collector"), "{restored}");
        stack.start_collector()?;
        until("the agent to send again what the backup lacks", SEEN_WAIT, || match used(stack) {
            Ok(used) if used == "2030" => Ok(()),
            Ok(used) => Err(format!("{used} used")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        send(stack, 5)?;
        stack.wait_posted(2_035)?;
        ensure!(newest_backup(stack)? == (0, 0), "of this ledger none was made");
        ensure!(used(stack)? == "2035", "{}", used(stack)?);
        let after = fence(stack)?;
        ensure!(after > fences, "incarnation {after} after {fences}");
        Ok(())
    })
}

#[test]
fn what_neither_the_backup_nor_the_journal_holds_is_named_with_its_size() -> Result<()> {
    // A journal that keeps next to nothing of what is posted.
    let settings = settings()?.agent("journal.retain_acked_bytes_max", "1B");
    Stack::run(settings, |stack| {
        let (ledger, backup) = (stack.path("ledger"), stack.path("backup"));
        let (ledger, backup) = (text(&ledger)?, text(&backup)?);
        send(stack, 10)?;
        stack.wait_posted(10)?;
        collector(&["backup", "--data-dir", ledger, "--to", backup])?;
        for _ in 0..3 {
            send(stack, 20)?;
            stack.wait_posted(0)?;
        }
        stack.wait_posted(70)?;
        let newer = stack.path("newer");
        collector(&["backup", "--data-dir", ledger, "--to", text(&newer)?])?;
        stack.stop_collector()?;
        std::fs::rename(ledger, stack.path("lost"))?;
        collector(&["restore", "--from", backup, "--data-dir", ledger])?;
        stack.spawn_collector()?;
        let missing = until("the missing batches to be named", SEEN_WAIT, || {
            let streams = stack.api().streams().map_err(|error| format!("{error:#}"))?;
            let stream = streams.streams.into_iter().next().ok_or("no stream")?;
            stream.missing.ok_or(format!("none; unheard: {}", stream.unheard_since_restore))
        })?;
        let posted = stack.api().streams()?.streams[0].clone();
        ensure!(missing.first_sequence == posted.posted_sequence + 1, "{missing:?} {posted:?}");
        // The last batch may be retained still; what is missing and what is held are all.
        ensure!((40..=60).contains(&missing.events), "{missing:?}");
        ensure!(posted.accepted == 70, "{posted:?}");
        let metrics = stack.collector_metrics()?;
        ensure!(metrics.count("tidemark_collector_missing_events")? == missing.events, "metrics");
        ensure!(metrics.count("tidemark_collector_missing_streams")? == 1, "metrics");
        ensure!(
            stack.logs().contains("neither here nor in the agent's journal"),
            "{}",
            stack.logs()
        );
        ensure!(used(stack)? == "10", "{}", used(stack)?);

        // A newer backup has them.
        stack.stop_collector()?;
        std::fs::rename(ledger, stack.path("holed"))?;
        collector(&["restore", "--from", text(&newer)?, "--data-dir", ledger])?;
        stack.stop_agent()?;
        stack.start_collector()?;
        ensure!(stack.api().streams()?.streams[0].unheard_since_restore, "nobody came yet");
        stack.start_agent()?;
        send(stack, 5)?;
        stack.wait_posted(75)?;
        let stream = stack.api().streams()?.streams[0].clone();
        ensure!(stream.missing.is_none() && !stream.unheard_since_restore, "{stream:?}");
        ensure!(used(stack)? == "75", "{}", used(stack)?);
        Ok(())
    })
}

/// Runs the collector's program, whatever comes of it: its exit code, and all that it said.
fn ended(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(Program::Collector.path()?).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn damaged_files_are_named_with_the_remedy() -> Result<()> {
    Stack::run(settings()?, |stack| {
        let (ledger, backup) = (stack.path("ledger"), stack.path("backup"));
        let (ledger, backup) = (text(&ledger)?, text(&backup)?);
        send(stack, 10)?;
        stack.wait_posted(10)?;
        let (code, said) = ended(&["fsck", "--data-dir", ledger])?;
        ensure!(code == Some(2) && said.contains("make a backup while it runs"), "{code:?} {said}");
        collector(&["backup", "--data-dir", ledger, "--to", backup])?;
        stack.kill_collector()?;
        let (code, said) = ended(&["fsck", "--data-dir", ledger])?;
        ensure!(code == Some(0) && said.ends_with("sound\n"), "after kill -9: {code:?} {said}");

        // Totals that are no database: found, and made anew by a start.
        std::fs::write(stack.path("ledger/totals.redb"), [7; 9_000])?;
        let (code, said) = ended(&["fsck", "--json", "--data-dir", ledger])?;
        ensure!(code == Some(1) && said.contains("\"kind\": \"totals\""), "{code:?} {said}");
        stack.start_collector()?;
        ensure!(used(stack)? == "10", "{}", used(stack)?);
        stack.stop_collector()?;

        // Half of a ledger: no start, and a restore in its place.
        let file = std::fs::File::options().write(true).open(stack.path("ledger/ledger.redb"))?;
        file.set_len(file.metadata()?.len() / 2)?;
        let (code, said) = ended(&["fsck", "--data-dir", ledger])?;
        ensure!(code == Some(1) && said.contains("file: ledger.redb"), "{code:?} {said}");
        let config = stack.path("collector.toml");
        let (code, said) = ended(&["serve", "--config", text(&config)?])?;
        ensure!(code == Some(1) && said.contains("tidemark-collector restore"), "{code:?} {said}");
        let (code, said) = ended(&["restore", "--from", backup, "--data-dir", ledger])?;
        ensure!(code == Some(1) && said.contains("move it away"), "{code:?} {said}");
        std::fs::rename(ledger, stack.path("lost"))?;
        collector(&["restore", "--from", backup, "--data-dir", ledger])?;
        stack.start_collector()?;
        send(stack, 5)?;
        stack.wait_posted(15)?;
        ensure!(used(stack)? == "15", "{}", used(stack)?);
        Ok(())
    })
}

#[test]
fn a_restore_that_is_killed_leaves_a_whole_ledger_or_none() -> Result<()> {
    Stack::run(settings()?, |stack| {
        let (ledger, backup) = (stack.path("ledger"), stack.path("backup"));
        let (ledger, backup) = (text(&ledger)?, text(&backup)?);
        send(stack, 2_000)?;
        stack.wait_posted(2_000)?;
        collector(&["backup", "--data-dir", ledger, "--to", backup])?;
        let (mut whole, mut none) = (0, 0);
        for moment in 0..24 {
            let target = stack.path(&format!("restored-{moment}"));
            let arguments = ["restore", "--from", backup, "--data-dir", text(&target)?];
            let log = stack.path("restore.log");
            let mut process = Process::start(Program::Collector, &arguments, &log)?;
            pause(Duration::from_millis(moment));
            if process.ended()?.is_none() {
                process.kill_9()?;
            }
            if target.join("ledger.redb").exists() {
                whole += 1;
            } else {
                none += 1;
                collector(&arguments)?;
            }
            let (code, said) = ended(&["fsck", "--data-dir", text(&target)?])?;
            ensure!(code == Some(0), "moment {moment}: {code:?} {said}");
            ensure!(said.contains("2000 events"), "moment {moment}: {said}");
        }
        println!("killed in 24 moments: {whole} whole, {none} none");
        Ok(())
    })
}

/// The incarnation of the agent's fence.
fn fence(stack: &Stack) -> Result<u64> {
    let status = stack.api().streams()?;
    let stream = status.streams.first().context("a stream")?;
    let (incarnation, _) = stream.fence.split_once('.').context("incarnation.counter")?;
    Ok(incarnation.parse()?)
}

#[test]
fn a_journal_that_was_rolled_back_stops_in_conflict() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(10)?;
        stack.stop_agent()?;
        std::fs::copy(stack.path("journal.redb"), stack.path("older.redb"))?;
        stack.start_agent()?;
        send(stack, 20)?;
        stack.wait_posted(30)?;
        stack.stop_agent()?;

        std::fs::copy(stack.path("older.redb"), stack.path("journal.redb"))?;
        stack.spawn_agent()?;
        let end = stack.agent()?.wait_end()?;
        ensure!(end.code() == Some(EXIT_CONFLICT), "the agent ended with {end}\n{}", stack.logs());
        ensure!(stack.logs().contains("What to do:"), "{}", stack.logs());
        ensure!(used(stack)? == "30", "{}", used(stack)?);
        let state = stack.api().streams()?.streams.first().map(|stream| stream.state.clone());
        ensure!(state.as_deref() == Some("conflict"), "{state:?}");

        // What the message says: set it aside, and go on with a new stream.
        std::fs::rename(stack.path("journal.redb"), stack.path("aside.redb"))?;
        stack.start_agent()?;
        stack.wait_connected()?;
        send(stack, 7)?;
        until("the new stream's usage", SEEN_WAIT, || match used(stack) {
            Ok(used) if used == "37" => Ok(()),
            Ok(used) => Err(format!("{used} used")),
            Err(error) => Err(format!("{error:#}")),
        })?;
        ensure!(stack.api().streams()?.streams.len() == 2, "two streams");
        Ok(())
    })
}

#[test]
fn a_journal_keeps_what_it_holds_from_another_ledger() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 10)?;
        stack.wait_posted(10)?;
        stack.stop_collector()?;
        std::fs::rename(stack.path("ledger"), stack.path("right"))?;
        // A new, empty ledger at the same address.
        stack.start_collector()?;
        send(stack, 20)?;
        until("the session to be stopped", SEEN_WAIT, || {
            let metrics = stack.agent_metrics().map_err(|error| format!("{error:#}"))?;
            match metrics.count_or_zero(STOPPED) {
                1 => Ok(()),
                _ => Err("it is not".to_owned()),
            }
        })?;
        ensure!(stack.logs().contains("belongs to ledger"), "{}", stack.logs());
        let posted =
            stack.collector_metrics()?.count("tidemark_collector_conservation_posted_events")?;
        ensure!(posted == 0, "{posted} events posted to the wrong ledger");
        // What is accepted meanwhile is kept, over a restart too.
        send(stack, 5)?;
        stack.stop_agent()?;
        stack.stop_collector()?;
        std::fs::rename(stack.path("ledger"), stack.path("wrong"))?;
        std::fs::rename(stack.path("right"), stack.path("ledger"))?;
        stack.start_collector()?;
        stack.start_agent()?;
        stack.wait_posted(35)?;
        ensure!(used(stack)? == "35", "{}", used(stack)?);
        Ok(())
    })
}
