//! `tidemark-agent drain`: what agents that are gone left behind is posted, once, and nobody is disturbed.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::settings::{Ports, Settings};
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::{CATALOGUE, send, wait_used};

const RACES: u64 = 4;
/// What drain exits with where another process holds a journal.
const EXIT_IN_USE: i32 = 4;

fn settings() -> Result<Settings> {
    let settings = Settings::new(Ports::free()?, CATALOGUE);
    Ok(settings.collector("session.idle_max", "2s").agent("shutdown_grace", "2s"))
}

/// The drainer's configuration: an uplink with its own certificate.
fn configure(stack: &Stack, name: &str) -> Result<()> {
    let text = format!(
        "[uplink]\ncollectors = [\"127.0.0.1:{}\"]\nca = \"certs/ca.pem\"\n\
         certificate = \"certs/{name}.pem\"\nkey = \"certs/{name}.key\"\n",
        stack.ports().quic
    );
    Ok(fs::write(stack.path("drainer.toml"), text)?)
}

fn drain(stack: &Stack, folder: &str, code: i32, named: &[&str]) -> Result<String> {
    let arguments = ["drain", "--journal-dir", folder, "--config", "drainer.toml"];
    let (seen, said) = stack.command(Program::Agent, &arguments)?;
    ensure!(seen == Some(code), "drain exits with {seen:?}: {said}");
    for name in named {
        ensure!(said.contains(name), "it does not say {name:?}: {said}");
    }
    Ok(said)
}

fn leave(stack: &Stack, pod: &str) -> Result<()> {
    let folder = stack.path("pods").join(pod);
    fs::create_dir_all(&folder)?;
    Ok(fs::rename(stack.path("journal.redb"), folder.join("journal.redb"))?)
}

#[test]
fn journals_of_agents_that_are_gone_are_shipped() -> Result<()> {
    Stack::run(settings()?, |stack| {
        configure(stack, "drainer")?;
        send(stack, 10)?;
        stack.wait_posted(10)?;
        stack.stop_collector()?;
        send(stack, 20)?;
        stack.kill_agent()?;
        leave(stack, "killed")?;
        // One that the collector has never heard of.
        stack.start_agent()?;
        send(stack, 6)?;
        stack.stop_agent()?;
        leave(stack, "unheard")?;
        fs::copy(stack.path("agent.toml"), stack.path("pods/not-a-journal.redb"))?;

        stack.start_collector()?;
        let named = [
            "20 events shipped; all 30 are posted",
            "6 events shipped; all 6",
            "not-a-journal.redb: failed",
        ];
        drain(stack, "pods", 1, &named)?;
        fs::remove_file(stack.path("pods/not-a-journal.redb"))?;
        wait_used(stack, 36)?;
        let said = drain(stack, "pods", 0, &["were posted before"])?;
        ensure!(said.matches("were posted before").count() == 2, "{said}");
        let streams = stack.api().streams()?.streams;
        ensure!(streams.iter().all(|stream| stream.state == "closed"), "{streams:?}");
        ensure!(streams.iter().any(|stream| stream.agent == "drainer:drainer"), "{streams:?}");
        let sessions =
            stack.collector_metrics()?.count("tidemark_collector_sessions_drainers_total")?;
        ensure!(sessions == 2, "{sessions} sessions of drainers");

        // Its agent comes back for it: the stream is its own from then on, and the drainer leaves it alone.
        fs::rename(stack.path("pods/unheard/journal.redb"), stack.path("journal.redb"))?;
        stack.start_agent()?;
        send(stack, 4)?;
        wait_used(stack, 40)?;
        drain(stack, ".", EXIT_IN_USE, &["journal.redb: in use"])?;
        let streams = stack.api().streams()?.streams;
        ensure!(streams.iter().all(|stream| stream.agent == "agent"), "{streams:?}");
        Ok(())
    })
}

#[test]
fn a_drainer_and_an_agent_that_starts_again_both_end_well() -> Result<()> {
    Stack::run(settings()?, |stack| {
        configure(stack, "drainer")?;
        let mut accepted = 0;
        for race in 1..=RACES {
            stack.wait_connected()?;
            stack.stop_collector()?;
            send(stack, 25)?;
            stack.kill_agent()?;
            stack.start_collector()?;
            let mut drainer = Command::new(Program::Agent.path()?)
                .args(["drain", "--journal-dir", ".", "--config", "drainer.toml"])
                .current_dir(stack.folder())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            // Every other time the drainer is killed on the way.
            stack.spawn_agent()?;
            if race % 2 == 0 {
                drainer.kill()?;
            }
            let end = drainer.wait()?;
            let well = matches!(end.code(), Some(0 | EXIT_IN_USE));
            ensure!(race % 2 == 0 || well, "the drainer ended with {end}");
            stack.wait_agent_ready()?;
            send(stack, 1)?;
            accepted += 26;
            wait_used(stack, accepted)?;
        }
        stack.wait_posted(accepted)?;
        Ok(())
    })
}

#[test]
fn only_a_drainer_ships_what_belongs_to_others() -> Result<()> {
    Stack::run(settings()?, |stack| {
        send(stack, 5)?;
        stack.wait_posted(5)?;
        stack.stop_collector()?;
        send(stack, 5)?;
        stack.kill_agent()?;
        leave(stack, "pod")?;
        stack.start_collector()?;
        stack.start_agent()?;
        configure(stack, "other")?;
        let refused =
            ["drain", "--journal-dir", "pods", "--config", "drainer.toml", "--seconds", "3"];
        let (code, said) = stack.command(Program::Agent, &refused)?;
        ensure!(code == Some(1) && said.contains("another identity"), "{code:?}: {said}");
        configure(stack, "drainer")?;
        drain(stack, "pods", 0, &["5 events shipped; all 10 are posted"])?;
        wait_used(stack, 10)
    })
}

#[test]
fn a_reader_that_has_gone_keeps_nothing_from_being_shipped() -> Result<()> {
    Stack::run(settings()?, |stack| {
        configure(stack, "drainer")?;
        stack.wait_connected()?;
        stack.stop_collector()?;
        send(stack, 5)?;
        stack.kill_agent()?;
        leave(stack, "one")?;
        stack.start_agent()?;
        send(stack, 6)?;
        stack.kill_agent()?;
        leave(stack, "two")?;
        stack.start_collector()?;
        let mut drainer = Command::new(Program::Agent.path()?)
            .args(["drain", "--journal-dir", "pods", "--config", "drainer.toml"])
            .current_dir(stack.folder())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        drop(drainer.stdout.take());
        let end = drainer.wait()?;
        ensure!(end.code() == Some(1), "it could not say what it did, and ended with {end}");
        wait_used(stack, 11)?;
        drain(stack, "pods", 0, &["were posted before"])?;
        stack.start_agent()
    })
}
