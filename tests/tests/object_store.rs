//! The archive in a bucket: a server of its own that speaks S3, and a collector built with `cloud-archive`.
//!
//! Ignored unless asked for: `tests/run` installs the server, builds that collector, and asks.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tidemark_tests::binaries::Program;
use tidemark_tests::http::Http;
use tidemark_tests::process::Launch;
use tidemark_tests::stack::Stack;
use tidemark_tests::usage::SEEN_WAIT;
use tidemark_tests::wait::{until, wide_range};

use crate::archived::{bill, collector, lose, numbers, put_key_back, send, settings, wait_used};

const PLACE: &str = "s3://books/tidemark";

/// The server; gone when this is dropped, and all buckets with it.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(log: &Path) -> Result<Self> {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../.scratch/clients/venv/bin/moto_server");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(log)?;
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to start {}: run tests/run", program.display()))?;
        let server = Self { child, url: format!("http://127.0.0.1:{port}") };
        let http = Http::new()?;
        until("the server to make a bucket", SEEN_WAIT, || {
            match http.put(&format!("{}/books", server.url), "") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
                Err(error) => Err(format!("{error:#}")),
            }
        })?;
        Ok(server)
    }

    /// What the collector reads from its environment.
    fn environment(&self) -> Launch {
        let variables = [
            ("AWS_ENDPOINT", self.url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "tests"),
            ("AWS_SECRET_ACCESS_KEY", "tests"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Launch { variables: variables.into(), ..Launch::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
#[ignore = "needs the server that tests/run installs, and a collector built with cloud-archive"]
fn object_store_holds_what_a_lost_ledger_is_made_of() -> Result<()> {
    let settings = settings()?
        .collector("archive.folder", "")
        .collector("archive.url", PLACE)
        .collector("archive.raw_events_rate", "64 MiB")
        .agent("journal.raw_events_bytes_max", "32MiB");
    let mut stack = Stack::prepare(settings)?;
    let server = Server::start(&stack.path("s3.log"))?;
    stack.launch(Program::Collector, server.environment());
    stack.start_both()?;
    let shown = held(&mut stack).with_context(|| stack.logs());
    drop(stack);
    shown
}

fn held(stack: &mut Stack) -> Result<()> {
    send(stack, 10)?;
    stack.wait_posted(30)?;
    // Told as issued: so the bucket holds it.
    let acme = bill(stack, "acme")?;
    ensure!(acme["outcome"] == "issued", "{acme}");
    // These are in no archive when the ledger is lost.
    send(stack, 20)?;
    stack.wait_posted(90)?;
    stack.kill_collector()?;
    lose(stack)?;
    let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
    ensure!(told.contains("sound") && told.contains("2 documents and"), "{told}");
    let told = collector(stack, &["serve", "--config", "collector.toml"], 1)?;
    ensure!(told.contains("restore-from-archive") && told.contains(PLACE), "{told}");
    collector(stack, &["restore-from-archive", "--config", "collector.toml"], 0)?;
    put_key_back(stack)?;
    stack.start_collector()?;
    wait_used(stack, 30)?;
    ensure!(bill(stack, "acme")?["number"] == acme["number"], "acme has its invoice");
    let birch = bill(stack, "birch")?;
    ensure!(birch["outcome"] == "issued", "{birch}");
    ensure!(numbers(stack)?.len() == 2, "{:?}", numbers(stack)?);

    // What was restored is archived on, single events too.
    stack.stop_collector()?;
    stack.start_collector()?;
    let (from, to) = wide_range();
    let target = format!("/v1/customers/acme/events?meter=api.calls&from={from}&to={to}");
    until("single events to be shown", SEEN_WAIT, || {
        let answer = stack.api().get(&target).and_then(|answer| answer.json());
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let shown = answer["events"].as_array().map_or(0, Vec::len);
        if shown == 30 { Ok(()) } else { Err(answer.to_string()) }
    })?;
    let told = collector(stack, &["archive", "verify", "--config", "collector.toml"], 0)?;
    ensure!(told.contains("sound"), "{told}");
    Ok(())
}
