//! Journals that were copied: what moves to a new stream, what a person exports and imports, and that all of
//! it counts once.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use redb::{Database, TableDefinition};
use tidemark_tests::binaries::Program;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{CATALOGUE, send, used, wait_used};

/// What the agent exits with after a conflict.
const EXIT_CONFLICT: i32 = 3;

pub(super) fn settings() -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Ok(settings.collector("session.idle_max", "2s").agent("shutdown_grace", "4s"))
}

/// Files of the stack's folder whose names hold `part`.
pub(super) fn files(stack: &Stack, part: &str) -> Result<Vec<String>> {
    let names = fs::read_dir(stack.folder())?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| name.contains(part)).collect())
}

pub(super) fn wait_conflict(stack: &mut Stack) -> Result<()> {
    let end = stack.agent()?.wait_end()?;
    ensure!(end.code() == Some(EXIT_CONFLICT), "the agent ended with {end}");
    Ok(())
}

/// The agent runs on a journal that is behind its ledger by 20 events, with 6 of its own; the collector does not.
pub(super) fn roll_back(stack: &mut Stack) -> Result<()> {
    send(stack, 3)?;
    stack.wait_posted(3)?;
    stack.stop_agent()?;
    fs::copy(stack.path("journal.redb"), stack.path("old.redb"))?;
    stack.start_agent()?;
    send(stack, 20)?;
    stack.wait_posted(23)?;
    stack.stop_agent()?;
    stack.stop_collector()?;
    fs::rename(stack.path("old.redb"), stack.path("journal.redb"))?;
    stack.start_agent()?;
    send(stack, 6)
}

/// Exports what was set aside.
fn export_rest(stack: &Stack, told: &str) -> Result<()> {
    let aside = files(stack, "conflict-")?;
    let [aside] = &aside[..] else { anyhow::bail!("{aside:?}") };
    ensure!(files(stack, "moving-")?.is_empty(), "the step is whole");
    export(stack, aside, told)
}

#[test]
fn a_copied_journal_counts_once_whatever_becomes_of_it() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 3)?;
        stack.wait_posted(3)?;
        stack.stop_collector()?;
        // A snapshot of the running agent's disk, with ten events that are not posted; then it accepts more.
        send(stack, 10)?;
        stack.agent()?.signal(Signal::SIGSTOP)?;
        fs::copy(stack.path("journal.redb"), stack.path("snapshot.redb"))?;
        stack.agent()?.signal(Signal::SIGCONT)?;
        send(stack, 20)?;
        stack.kill_agent()?;
        fs::rename(stack.path("journal.redb"), stack.path("original.redb"))?;

        // The snapshot is started first, and goes on.
        fs::copy(stack.path("snapshot.redb"), stack.path("journal.redb"))?;
        stack.start_collector()?;
        stack.start_agent()?;
        send(stack, 35)?;
        stack.wait_posted(48)?;
        stack.stop_agent()?;

        // Then the original, which accepts in two openings of its own before it hears of the collector.
        stack.stop_collector()?;
        fs::rename(stack.path("original.redb"), stack.path("journal.redb"))?;
        stack.start_agent()?;
        send(stack, 7)?;
        stack.kill_agent()?;
        stack.start_agent()?;
        send(stack, 4)?;
        stack.start_collector()?;
        wait_conflict(stack)?;
        ensure!(used(stack)? == "48", "{}", used(stack)?);

        // Its next start moves both, and leaves what is posted in part.
        stack.start_agent()?;
        wait_used(stack, 59)?;
        let streams = stack.api().streams()?.streams;
        ensure!(streams.len() == 2, "{streams:?}");
        export_rest(stack, "30 events")?;
        // They were summed up when the original started again: no part of a batch can be imported.
        let import = ["import", "rest.jsonl", "--config", "agent.toml"];
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(1) && said.contains("30 events are in a batch"), "{code:?}: {said}");
        send(stack, 1)?;
        wait_used(stack, 60)
    })
}

#[test]
fn what_a_person_exports_is_imported_once() -> Result<()> {
    Stack::run(settings()?, |stack| {
        leave_rest(stack)?;
        imported_once(stack)
    })
}

/// Of 33 events 13 are posted; the other 20 are in `rest.jsonl`, with ten that are posted.
pub(super) fn leave_rest(stack: &mut Stack) -> Result<()> {
    send(stack, 3)?;
    stack.wait_posted(3)?;
    stack.stop_collector()?;
    send(stack, 10)?;
    stack.agent()?.signal(Signal::SIGSTOP)?;
    fs::create_dir(stack.path("copy"))?;
    fs::copy(stack.path("journal.redb"), stack.path("copy/journal.redb"))?;
    stack.agent()?.signal(Signal::SIGCONT)?;
    send(stack, 20)?;
    // The copy is shipped while the original knows nothing of it.
    stack.agent()?.signal(Signal::SIGSTOP)?;
    stack.start_collector()?;
    let uplink = fs::read_to_string(stack.path("agent.toml"))?.replace("/agent.", "/drainer.");
    fs::write(stack.path("drainer.toml"), uplink)?;
    let drain = ["drain", "--journal-dir", "copy", "--config", "drainer.toml"];
    let (code, said) = stack.command(Program::Agent, &drain)?;
    ensure!(code == Some(0) && said.contains("10 events shipped"), "{code:?}: {said}");
    stack.agent()?.signal(Signal::SIGCONT)?;
    wait_conflict(stack)?;
    stack.start_agent()?;
    export_rest(stack, "30 events")
}

fn of_state(stack: &Stack, state: &str) -> Result<usize> {
    Ok(stack.api().streams()?.streams.iter().filter(|stream| stream.state == state).count())
}

/// 30 events are exported, of which 10 are posted.
fn imported_once(stack: &mut Stack) -> Result<()> {
    let import = ["import", "rest.jsonl", "--config", "agent.toml", "--seconds", "50"];
    // Cut short on the way, with the collector away.
    stack.stop_collector()?;
    let cut_short = [&import[..5], &["1"]].concat();
    let (code, said) = stack.command(Program::Agent, &cut_short)?;
    ensure!(code == Some(1) && said.contains("20 left"), "{code:?}: {said}");
    stack.start_collector()?;
    for _ in ["shipped", "shipped before"] {
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(0) && said.contains("all 20 events are posted"), "{code:?}: {said}");
        ensure!(said.contains("10 events were posted before, and are left out"), "{said}");
        wait_used(stack, 33)?;
    }
    // From another machine, as it were: the working file is not there.
    let working = files(stack, "import-")?;
    fs::remove_file(stack.path(working.first().context("a working file")?))?;
    let (code, said) = stack.command(Program::Agent, &import)?;
    ensure!(code == Some(0) && said.contains("all 20 events are posted"), "{code:?}: {said}");
    ensure!(of_state(stack, "conflict")? == 1, "the import's stream is in order");
    // The agent goes on meanwhile.
    send(stack, 1)?;
    wait_used(stack, 34)
}

#[test]
fn two_copies_that_move_the_same_count_once() -> Result<()> {
    Stack::run(settings()?, |stack| {
        // With six events since; and then copied again.
        roll_back(stack)?;
        stack.kill_agent()?;
        fs::copy(stack.path("journal.redb"), stack.path("twin.redb"))?;
        stack.start_collector()?;
        stack.spawn_agent()?;
        wait_conflict(stack)?;
        stack.start_agent()?;
        wait_used(stack, 29)?;
        stack.stop_agent()?;

        // Its twin moves the same, makes the same stream, and hears that this one too is another's.
        fs::rename(stack.path("journal.redb"), stack.path("done.redb"))?;
        fs::rename(stack.path("twin.redb"), stack.path("journal.redb"))?;
        for _ in ["the old stream", "the derived one"] {
            stack.spawn_agent()?;
            wait_conflict(stack)?;
        }
        stack.start_agent()?;
        send(stack, 1)?;
        wait_used(stack, 30)?;
        ensure!(stack.api().streams()?.streams.len() == 3, "old, derived, and new");
        Ok(())
    })
}

#[test]
fn of_a_damaged_journal_a_person_says_what_is_posted() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 3)?;
        stack.wait_posted(3)?;
        stack.stop_collector()?;
        send(stack, 10)?;
        stack.stop_agent()?;
        // One that is sound ships itself.
        export(stack, "journal.redb", "`tidemark-agent drain` ships it itself")?;
        let import = ["import", "rest.jsonl", "--config", "agent.toml", "--posted-below", "3"];
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(1) && said.contains("10 events are left out"), "{code:?}: {said}");

        damage(stack)?;
        stack.start_collector()?;
        stack.start_agent()?;
        let aside = files(stack, "corrupt-")?;
        let [aside] = &aside[..] else { anyhow::bail!("{aside:?}") };
        fs::remove_file(stack.path("rest.jsonl"))?;
        export(stack, aside, "import once more with --posted-below")?;
        let (code, said) = stack.command(Program::Agent, &import[..4])?;
        ensure!(code == Some(1) && said.contains("10 events are left out"), "{code:?}: {said}");
        wait_used(stack, 3)?;
        let streams = stack.api().streams()?.streams;
        let posted = streams.iter().map(|stream| stream.posted_events).max();
        ensure!(posted == Some(3), "{streams:?}");
        let other = [&import[..5], &["23"]].concat();
        let (code, said) = stack.command(Program::Agent, &other)?;
        ensure!(code == Some(1) && said.contains("another stream's"), "{code:?}: {said}");
        for _ in ["shipped", "shipped before"] {
            let (code, said) = stack.command(Program::Agent, &import)?;
            let told = "all 10 events are posted";
            ensure!(code == Some(0) && said.contains(told), "{code:?}: {said}");
            wait_used(stack, 13)?;
        }
        Ok(())
    })
}

fn export(stack: &Stack, journal: &str, told: &str) -> Result<()> {
    let export = ["export", "--journal", journal, "--output", "rest.jsonl"];
    let (code, said) = stack.command(Program::Agent, &export)?;
    ensure!(code == Some(0) && said.contains(told), "{code:?}: {said}");
    Ok(())
}

/// Spoils the row of the journal's last opening, which its events do not need.
fn damage(stack: &Stack) -> Result<()> {
    const META: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("meta");
    const OPENED: u16 = 2;
    let database = Database::open(stack.path("journal.redb"))?;
    let write = database.begin_write()?;
    write.open_table(META)?.insert(OPENED, &[1][..])?;
    write.commit()?;
    Ok(())
}

#[test]
fn what_another_copy_has_moved_is_not_imported() -> Result<()> {
    Stack::run(settings()?, |stack| {
        // With six events since; and copied while it runs, as to another machine.
        roll_back(stack)?;
        stack.agent()?.signal(Signal::SIGSTOP)?;
        fs::copy(stack.path("journal.redb"), stack.path("twin.redb"))?;
        stack.agent()?.signal(Signal::SIGCONT)?;
        // The collector gives the six to the process that has accepted them.
        stack.start_collector()?;
        wait_conflict(stack)?;
        stack.start_agent()?;
        wait_used(stack, 29)?;
        stack.stop_agent()?;

        // The twin hears that they are not its own.
        fs::create_dir(stack.path("first"))?;
        for file in files(stack, "journal.redb")? {
            fs::rename(stack.path(&file), stack.path("first").join(&file))?;
        }
        fs::rename(stack.path("twin.redb"), stack.path("journal.redb"))?;
        stack.spawn_agent()?;
        wait_conflict(stack)?;
        export(stack, "journal.redb", "another copy of the journal may have moved them")?;
        let import = ["import", "rest.jsonl", "--config", "agent.toml"];
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(1) && said.contains("6 events are left out"), "{code:?}: {said}");
        // Its next start finds nothing to move.
        stack.start_agent()?;
        send(stack, 1)?;
        wait_used(stack, 30)
    })
}
