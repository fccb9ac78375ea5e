//! The command line of the collector.
//!
//! **Owns** arguments, logging, signals and what is printed. **Does not own** anything else: `run`
//! does the work.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use tidemark_collector::adopt::command::{Folder, Target};
use tidemark_collector::adopt::{self, Adopted, AskedChange};
use tidemark_collector::billing_run::command::{self, Form};
use tidemark_collector::billing_run::door::AskedRun;
use tidemark_collector::certificate::keys::{self, command::AskedKeys};
use tidemark_collector::config::{Config, LogFormat, reference};
use tidemark_collector::dev_certs::{self, Existing};
use tidemark_collector::ledger::TimeSource;
use tidemark_collector::reconcile::command as reconcile;
use tidemark_collector::reconcile::door::{self, AskedLoss, AskedReport, AskedWaiver};
use tidemark_collector::restore::Used;
use tidemark_collector::verify::command::{Audited, Verdict};
use tidemark_collector::{Signal, backup, fsck, restore, run, verify};
use tidemark_common::id::NameError;
use tidemark_common::time::Timestamp;
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
        /// Begins although the clock is over 400 days ahead of the ledger's time, which then goes there for good.
        #[arg(long)]
        trust_clock: bool,
        /// Makes a new ledger a sandbox, for good: its time goes forward by POST /v1/test-clock too.
        #[arg(long)]
        test_clock: bool,
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
        /// The name of a drainer, which may ship the journals of agents that are gone.
        #[arg(long = "drainer")]
        drainers: Vec<String>,
        /// Replaces files that are there already.
        #[arg(long)]
        force: bool,
    },
    /// Issues what is due for the periods that end on a date: exit code 0, 1 where customers have problems, 2 if it
    /// cannot run. Twice issues the same once.
    Bill {
        #[command(flatten)]
        place: Place,
        /// The first day after the periods: 2026-12-01 bills November, in each customer's time zone.
        #[arg(long)]
        period_end: String,
        /// Writes nothing: shows what would be issued.
        #[arg(long)]
        dry_run: bool,
        /// Bills too what ended more than 100 days ago.
        #[arg(long)]
        old: bool,
        /// Only this customer; may be given several times.
        #[arg(long = "customer")]
        customers: Vec<String>,
        /// Issues though usage may be missing, for this reason, which the entries keep.
        #[arg(long, value_name = "REASON")]
        although_incomplete: Option<String>,
        /// Who does it, for the entries.
        #[arg(long, default_value = "command line")]
        actor: String,
        /// One JSON object a line, each draft with its bill and document.
        #[arg(long)]
        json: bool,
    },
    /// Says what keeps a cut of the ledger from being complete and right, and what to do: exit code 0 if no invoice waits
    /// for anything, 1 if some do, 2 if it cannot be said.
    Reconcile {
        #[command(flatten)]
        place: Place,
        /// The cut, on a quarter of an hour: 2026-12-01T00:00:00Z. Without it the newest.
        #[arg(long)]
        at: Option<String>,
        /// Recomputes nothing from the batches.
        #[arg(long)]
        quick: bool,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Invoices need not wait for a finding, for a reason that an entry keeps.
    Waive {
        #[command(flatten)]
        place: Place,
        /// As `reconcile` and `bill` name it.
        finding: String,
        /// Not for more events than these; without it, than the finding has now.
        #[arg(long)]
        events_max: Option<u64>,
        #[arg(long)]
        reason: String,
        /// Who does it, for the entry.
        #[arg(long = "by", default_value = "command line")]
        actor: String,
    },
    /// Says that a stream's agent will not come again. It has no effect once the agent is heard after it.
    DeclareLost {
        #[command(flatten)]
        place: Place,
        /// The stream's id.
        stream: String,
        #[arg(long)]
        reason: String,
        /// Who does it, for the entry.
        #[arg(long = "by", default_value = "command line")]
        actor: String,
    },
    /// Replaces the catalogue that is in the ledger (catalog_source = "ledger"); GET /v1/catalog shows it.
    Catalog {
        #[command(subcommand)]
        act: CatalogAct,
    },
    /// Copies the ledger while its collector runs, or while it is stopped.
    Backup {
        #[command(flatten)]
        place: Place,
        /// The folder to make; it must not be there.
        #[arg(long)]
        to: PathBuf,
    },
    /// Makes a ledger of a backup, in a folder without one; or checks a backup.
    Restore {
        /// The folder that `backup` made.
        #[arg(long)]
        from: PathBuf,
        #[command(flatten)]
        place: Place,
        /// Reads all of the backup and says whether it is sound; restores nothing.
        #[arg(long)]
        check: bool,
        /// An incarnation that is known to be used: the restored ledger's is above it.
        #[arg(long, default_value_t = 0)]
        incarnation_min: u32,
        /// The latest ledger time that anybody has seen, as RFC 3339: it begins no earlier.
        #[arg(long)]
        ledger_time_min: Option<jiff::Timestamp>,
        /// Restores although the clock is over 400 days ahead of the backup's time, which then goes there for good.
        #[arg(long)]
        trust_clock: bool,
    },
    /// Checks a stopped collector's files against each other: exit code 0 sound, 1 findings, 2 cannot be
    /// checked.
    Fsck {
        #[command(flatten)]
        place: Place,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
        /// Where the totals are summed anew, in place of the ledger's folder.
        #[arg(long)]
        scratch: Option<PathBuf>,
    },
    /// The keys that certificates are signed with: shown as they are published, or rotated.
    Keys {
        #[command(subcommand)]
        act: KeysAct,
    },
    /// Verifies an invoice's proof (GET /v1/invoices/{number}/proof), or a certificate with an archive, offline: exit code
    /// 0 verified, 1 refused, 2 cannot be read.
    Verify(VerifyArguments),
    /// Prints every setting with its default and meaning, as a Markdown table.
    ConfigReference,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// `invoice.json`; with --batches `certificate.json`.
    file: PathBuf,
    /// The archive's folder: computes a certificate's chains, tree and sums again.
    #[arg(long, value_name = "DIR")]
    batches: Option<PathBuf>,
    /// What GET /v1/certificates/{number}/streams answered.
    #[arg(long, requires = "batches")]
    streams: Option<PathBuf>,
    /// What GET /.well-known/tidemark-keys answered: whose signatures are accepted.
    #[arg(long)]
    keys: Option<PathBuf>,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum KeysAct {
    /// Prints what /.well-known/tidemark-keys shows.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Makes another key, which the one before signs, and prints all.
    Rotate {
        #[command(flatten)]
        place: Place,
        /// Who does it, for the entry.
        #[arg(long, default_value = "command line")]
        actor: String,
    },
}

#[derive(Debug, Subcommand)]
enum CatalogAct {
    /// Takes all *.toml of a folder, in the order of their names, as the catalogue; says what changes.
    Apply {
        #[command(flatten)]
        place: Place,
        dir: PathBuf,
        /// Says what would change, and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// Why, for the entry.
        #[arg(long)]
        reason: Option<String>,
        /// Who does it, for the entry.
        #[arg(long, default_value = "command line")]
        actor: String,
    },
}

/// Where the ledger is.
#[derive(Debug, Args)]
struct Place {
    #[arg(long, default_value = "/etc/tidemark/collector.toml")]
    config: PathBuf,
    /// The ledger's folder, in place of the configuration's.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn data_dir(self) -> Result<PathBuf> {
        match self.data_dir {
            Some(folder) => Ok(folder),
            None => Ok(Config::load(&self.config)?.data_dir),
        }
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // A check that cannot be made is neither sound nor a finding.
    let is_check = matches!(
        command,
        Command::Fsck { .. }
            | Command::Bill { .. }
            | Command::Verify(_)
            | Command::Reconcile { .. }
    );
    let failure = if is_check { ExitCode::from(2) } else { ExitCode::FAILURE };
    execute(command).unwrap_or_else(|error| {
        let _written = writeln!(io::stderr(), "tidemark-collector: {}", told(&error)).is_ok();
        failure
    })
}

/// The error and its causes, each said once: some messages hold their cause already.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}

fn execute(command: Command) -> Result<ExitCode> {
    let done = match command {
        Command::Fsck { place, json, scratch } => {
            return check_files(&place.data_dir()?, json, scratch.as_deref());
        }
        Command::Verify(asked) => return verify_file(&asked),
        Command::Bill {
            place,
            period_end,
            dry_run,
            old,
            customers,
            although_incomplete,
            actor,
            json,
        } => {
            let asked =
                AskedRun { period_end, dry_run, old, actor, although_incomplete, customers };
            let form = if json { Form::Json } else { Form::Text };
            return bill(place, &asked, form);
        }
        Command::Reconcile { place, at, quick, json } => {
            return reconcile_ledger(place, &AskedReport { at, quick }, json);
        }
        Command::Waive { place, finding, events_max, reason, actor } => {
            let asked = AskedWaiver { finding, events_max, actor, reason };
            book(place, door::WAIVE, &asked, "waived")
        }
        Command::DeclareLost { place, stream, reason, actor } => {
            let asked = AskedLoss { stream, actor, reason };
            book(place, door::LOSE, &asked, "declared lost")
        }
        Command::Catalog { act: CatalogAct::Apply { place, dir, dry_run, reason, actor } } => {
            let asked = AskedChange { text: String::new(), dry_run, actor, reason };
            apply_catalog(place, &dir, asked)
        }
        Command::Serve { config, trust_clock, test_clock } => {
            serve(&config, trust_clock, test_clock)
        }
        Command::CheckConfig { config } => check_config(&config),
        Command::DevCerts { dir, agents, drainers, force } => {
            let existing = if force { Existing::Overwrite } else { Existing::Keep };
            make_certs(&dir, &agents, &drainers, existing)
        }
        Command::Backup { place, to } => make_backup(&place.data_dir()?, &to),
        Command::Restore { from, check: true, .. } => {
            let manifest = restore::check(&from, &mut progress)?;
            print(&format!("ok: {}\n", manifest.told()))
        }
        Command::Restore {
            from,
            place,
            check: false,
            incarnation_min,
            ledger_time_min,
            trust_clock,
        } => {
            let millis = ledger_time_min.map_or(0, jiff::Timestamp::as_millisecond);
            let ledger_time = Timestamp(millis);
            let used = Used { incarnation: incarnation_min, ledger_time, trust_clock };
            restore_backup(&from, &place.data_dir()?, used)
        }
        Command::Keys { act } => show_keys(act),
        Command::ConfigReference => print(&reference::markdown()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn bill(place: Place, asked: &AskedRun, form: Form) -> Result<ExitCode> {
    let config = Config::load(&place.config)?;
    let data_dir = place.data_dir.unwrap_or_else(|| config.data_dir.clone());
    let mut stdout = io::stdout().lock();
    let counts = command::bill(&config, &data_dir, asked, form, &mut stdout)?;
    Ok(if counts.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_keys(act: KeysAct) -> Result<()> {
    let (place, rotate, actor) = match act {
        KeysAct::Show { place } => (place, false, String::new()),
        KeysAct::Rotate { place, actor } => (place, true, actor),
    };
    let keys = keys::command::keys(&place.data_dir()?, &AskedKeys { rotate, actor })?;
    print(&format!("{}\n", serde_json::to_string(&keys)?))
}

fn reconcile_ledger(place: Place, asked: &AskedReport, json: bool) -> Result<ExitCode> {
    let config = Config::load(&place.config)?;
    let data_dir = place.data_dir.unwrap_or_else(|| config.data_dir.clone());
    let form = if json { reconcile::Form::Json } else { reconcile::Form::Text };
    let mut stdout = io::stdout().lock();
    let passes = reconcile::reconcile(&config, &data_dir, asked, form, &mut stdout)?;
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn book(place: Place, verb: &str, asked: &impl serde::Serialize, done: &str) -> Result<()> {
    let config = Config::load(&place.config)?;
    let data_dir = place.data_dir.unwrap_or_else(|| config.data_dir.clone());
    let entry = reconcile::book(&config, &data_dir, verb, asked)?;
    print(&format!("{done}: entry {entry}\n"))
}

fn apply_catalog(place: Place, dir: &Path, asked: AskedChange) -> Result<()> {
    let config = Config::load(&place.config)?;
    let data_dir = place.data_dir.unwrap_or_else(|| config.data_dir.clone());
    let target = Target { data_dir: &data_dir, source: config.catalog_source };
    let dry_run = asked.dry_run;
    let Adopted { entry, changes } = adopt::command::apply(&target, &Folder::read(dir)?, asked)?;
    let end = match entry {
        Some(entry) => format!("applied: entry {entry}\n"),
        None if dry_run => format!("{} would change; nothing was applied\n", changes.len()),
        None => "nothing has changed\n".to_owned(),
    };
    print(&format!("{}{end}", changes.concat()))
}

fn serve(path: &Path, trust_clock: bool, test_clock: bool) -> Result<()> {
    let config = Config { trust_clock, test_clock, ..Config::load(path)? };
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
    let prices =
        catalog.plans.values().flatten().map(|version| version.prices.len()).sum::<usize>();
    let mut report = format!(
        "ok: meters: {}, customers: {}, plans: {}, prices: {}, API tokens: {}\n",
        catalog.meters.len(),
        catalog.customers.len(),
        catalog.plans.len(),
        prices,
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

fn make_certs(
    dir: &Path,
    agents: &[String],
    drainers: &[String],
    existing: Existing,
) -> Result<()> {
    let named = |name: &String, parsed: Result<AgentName, NameError>| {
        parsed.with_context(|| {
            format!("{name:?} is no name for one; use A-Z, a-z, 0-9, `.`, `_` and `-`")
        })
    };
    let agents = agents
        .iter()
        .map(|name| named(name, AgentName::parse(name)))
        .chain(drainers.iter().map(|name| named(name, AgentName::parse_drainer(name))))
        .collect::<Result<Vec<_>>>()?;
    let today = jiff::Zoned::now().date();
    let files = dev_certs::make(dir, &agents, existing, today)?;
    print(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())
}

fn make_backup(data_dir: &Path, to: &Path) -> Result<()> {
    let manifest = backup::make(data_dir, to, &mut progress)?;
    print(&format!("made {}: {}\n", to.display(), manifest.told()))
}

fn restore_backup(from: &Path, data_dir: &Path, used: Used) -> Result<()> {
    let now = TimeSource::system().read().wall;
    let report = restore::restore(from, data_dir, used, now, &mut progress)?;
    print(&report.told(data_dir))
}

fn check_files(data_dir: &Path, json: bool, scratch: Option<&Path>) -> Result<ExitCode> {
    let report = fsck::run(data_dir, scratch, &mut progress)?;
    print(&if json { report.json() } else { report.told() })?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify_file(asked: &VerifyArguments) -> Result<ExitCode> {
    let VerifyArguments { file, batches, streams, keys, json } = asked;
    let form = if *json { verify::command::Form::Json } else { verify::command::Form::Text };
    let keys = keys.as_deref();
    let Verdict { accepted, told } = match batches {
        None => verify::command::invoice(file, keys, form)?,
        Some(batches) => {
            let audited = Audited { certificate: file, batches, streams: streams.as_deref() };
            verify::command::certificate(audited, keys, form)?
        }
    };
    print(&told)?;
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn progress(bytes: u64) {
    let mebibytes = bytes.div_euclid(1 << 20);
    let _told = writeln!(io::stderr(), "{mebibytes} MiB").is_ok();
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
