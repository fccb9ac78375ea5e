//! A conflict's move and an import, killed again and again on their way: what they are about counts once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::random::Random;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{CATALOGUE, send, wait_used};
use tidemark_tests::wait::pause;

const EXIT_CONFLICT: i32 = 3;
const KILLS: u64 = 25;
/// A start with a move takes about this long, and so does an import.
const MILLIS: u64 = 40;

fn settings() -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Ok(settings.collector("session.idle_max", "2s").agent("shutdown_grace", "4s"))
}

/// A journal that is behind its ledger by 20 events, with 6 of its own, and knows that it is in conflict.
fn rolled_back(stack: &mut Stack) -> Result<()> {
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
    send(stack, 6)?;
    stack.start_collector()?;
    let end = stack.agent()?.wait_end()?;
    ensure!(end.code() == Some(EXIT_CONFLICT), "the agent ended with {end}");
    Ok(())
}

fn a_while(random: &mut Random) {
    pause(Duration::from_millis(random.below(MILLIS)));
}

#[test]
fn a_move_that_is_killed_again_and_again_counts_once() -> Result<()> {
    let mut random = Random::new(announced());
    Stack::run(settings()?, |stack| {
        rolled_back(stack)?;
        for _ in 0..KILLS {
            stack.spawn_agent()?;
            a_while(&mut random);
            stack.kill_agent()?;
        }
        stack.start_agent()?;
        wait_used(stack, 29)?;
        send(stack, 1)?;
        wait_used(stack, 30)
    })
}

#[test]
fn an_import_that_is_killed_again_and_again_counts_once() -> Result<()> {
    let mut random = Random::new(announced());
    Stack::run(settings()?, |stack| {
        rolled_back(stack)?;
        // The journal in conflict is exported and put away; its agent begins anew.
        let export = ["export", "--journal", "journal.redb", "--output", "rest.jsonl"];
        let (code, said) = stack.command(Program::Agent, &export)?;
        ensure!(code == Some(0) && said.contains("6 events"), "{code:?}: {said}");
        fs::rename(stack.path("journal.redb"), stack.path("done.redb"))?;
        stack.start_agent()?;
        let import = ["import", "rest.jsonl", "--config", "agent.toml", "--seconds", "50"];
        for _ in 0..KILLS {
            let mut importing = Command::new(Program::Agent.path()?)
                .args(import)
                .current_dir(stack.folder())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            a_while(&mut random);
            // What has ended by itself needs no signal.
            drop(importing.kill());
            importing.wait()?;
        }
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(0), "{code:?}: {said}");
        wait_used(stack, 29)?;
        send(stack, 1)?;
        wait_used(stack, 30)
    })
}

/// A fresh seed, printed.
#[expect(clippy::print_stdout, reason = "a failed test shows its seed")]
fn announced() -> u64 {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    seed
}
