//! Disks that come back older than they were, and journals that meet another ledger.

use std::path::Path;

use anyhow::{Result, ensure};
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{CATALOGUE, SEEN_WAIT, send, used};
use tidemark_tests::wait::until;

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
