//! A conflict's move and an import, killed again and again on their way: what they are about counts once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::random::Random;
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{send, wait_used};
use tidemark_tests::wait::pause;

use super::identity::{files, leave_rest, roll_back, settings, wait_conflict};

const KILLS: u64 = 25;
/// A start with a move takes about this long, and so does an import.
const MILLIS: u64 = 40;

/// A rolled-back journal that knows that it is in conflict.
fn in_conflict(stack: &mut Stack) -> Result<()> {
    roll_back(stack)?;
    stack.start_collector()?;
    wait_conflict(stack)
}

fn a_while(random: &mut Random) {
    pause(Duration::from_millis(random.below(MILLIS)));
}

#[test]
fn a_move_that_is_killed_again_and_again_counts_once() -> Result<()> {
    let mut random = Random::new(announced());
    Stack::run(settings()?, |stack| {
        in_conflict(stack)?;
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
    import_under_kills(false)
}

#[test]
fn an_import_whose_working_file_is_lost_again_and_again_counts_once() -> Result<()> {
    import_under_kills(true)
}

/// Of 33 events 20 are in the export alone.
fn import_under_kills(loses_its_file: bool) -> Result<()> {
    let mut random = Random::new(announced());
    Stack::run(settings()?, |stack| {
        leave_rest(stack)?;
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
            if loses_its_file {
                for file in files(stack, "import-")? {
                    fs::remove_file(stack.path(&file))?;
                }
            }
        }
        let (code, said) = stack.command(Program::Agent, &import)?;
        ensure!(code == Some(0), "{code:?}: {said}");
        wait_used(stack, 33)?;
        send(stack, 1)?;
        wait_used(stack, 34)
    })
}

/// A fresh seed, printed.
#[expect(clippy::print_stdout, reason = "a failed test shows its seed")]
fn announced() -> u64 {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    seed
}
