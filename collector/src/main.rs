//! The command line of the collector.
//!
//! **Owns** arguments, logging, signals and what is printed. **Does not own** anything else: `run`
//! does the work.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use tidemark_collector::config::{Config, LogFormat, reference};
use tidemark_collector::dev_certs::{self, Existing};
use tidemark_collector::{Signal, run};
use tidemark_common::tls::{AgentName, ServerTls};

/// Admits numbered usage batches exactly once, keeps the ledger, answers live bills.
#[derive(Debug, Parser)]
#[command(name = "tidemark-collector", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the collector until SIGTERM; SIGHUP reads the catalogue again.
    Serve {
        #[arg(long, default_value = "/etc/tidemark/collector.toml")]
        config: PathBuf,
    },
    /// Checks configuration, catalogue and certificates, and says everything that is wrong.
    CheckConfig {
        #[arg(long, default_value = "/etc/tidemark/collector.toml")]
        config: PathBuf,
    },
    /// Makes a CA, a collector's and agents' certificates for local use.
    DevCerts {
        /// The folder, which is made if it is not there.
        dir: PathBuf,
        /// An agent's name; may be given several times.
        #[arg(long = "agent", default_value = "agent")]
        agents: Vec<String>,
        /// Replaces files that are there already.
        #[arg(long)]
        force: bool,
    },
    /// Prints every setting with its default and meaning, as a Markdown table.
    ConfigReference,
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _written = writeln!(io::stderr(), "tidemark-collector: {}", told(&error)).is_ok();
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, each said once: some messages hold their cause already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Serve { config } => serve(&config),
        Command::CheckConfig { config } => check_config(&config),
        Command::DevCerts { dir, agents, force } => {
            make_certs(&dir, &agents, if force { Existing::Overwrite } else { Existing::Keep })
        }
        Command::ConfigReference => print(&reference::markdown()),
    }
}

fn serve(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    log_to_stderr(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    runtime.block_on(async {
        let signals = signals().context("failed to listen for signals")?;
        run(config, signals, |_| ()).await.map_err(Into::into)
    })
}

fn check_config(path: &Path) -> Result<()> {
    let config = Config::load(path)?;
    let catalog = config.load_catalog()?;
    let tls = ServerTls::new(&config.load_pem()?)?;
    let prices = catalog.plan.as_ref().map_or(0, |plan| plan.prices.len());
    let mut report = format!(
        "ok: meters: {}, customers: {}, prices: {prices}, API tokens: {}\n",
        catalog.meters.len(),
        catalog.customers.len(),
        config.tokens.len(),
    );
    if let Some(shown) = tls.shown() {
        report.push_str(&format!("the certificate is {shown}\n"));
    }
    if config.tokens.is_empty() {
        report.push_str("note: without an [[api.token]] the API answers 401 to everybody\n");
    }
    print(&report)
}

fn make_certs(dir: &Path, agents: &[String], existing: Existing) -> Result<()> {
    let parse = |name: &String| {
        AgentName::parse(name).with_context(|| {
            format!("{name:?} is no agent's name; use A-Z, a-z, 0-9, `.`, `_` and `-`")
        })
    };
    let agents = agents.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let today = jiff::Zoned::now().date();
    let files = dev_certs::make(dir, &agents, existing, today)?;
    print(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())
}

fn log_to_stderr(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log_level).with_context(|| {
        format!("`log_level` is {:?}; write a level such as \"info\"", config.log_level)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// SIGTERM and SIGINT stop, SIGHUP reloads.
fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(8);
    for (kind, meant) in [
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::hangup(), Signal::Reload),
    ] {
        let (mut received, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while received.recv().await.is_some() && sender.send(meant).await.is_ok() {}
        });
    }
    Ok(receiver)
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to print"),
    }
}
