//! The command line of the collector.
//!
//! **Owns** logging, signals and what is printed. **Does not own** arguments (`arguments.rs`), or anything else: `run`
//! does the work.

mod arguments;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use tidemark_collector::adopt::command::{Folder, Target};
use tidemark_collector::adopt::{self, Adopted, AskedChange};
use tidemark_collector::archive::read::Archive;
use tidemark_collector::archive::{self, task};
use tidemark_collector::backup::last::BackupNote;
use tidemark_collector::billing_run::command::{self, Form};
use tidemark_collector::billing_run::door::AskedRun;
use tidemark_collector::certificate::keys::{self, command::AskedKeys};
use tidemark_collector::config::{Config, LogFormat, reference};
use tidemark_collector::dev_certs::{self, Existing};
use tidemark_collector::ledger::TimeSource;
use tidemark_collector::reconcile::command as reconcile;
use tidemark_collector::reconcile::door::{self, AskedLoss, AskedReport, AskedWaiver};
use tidemark_collector::restore::Used;
use tidemark_collector::verify::command::{self as proofs, Audited, Verdict};
use tidemark_collector::{Signal, backup, fsck, ready, restore, run};
use tidemark_common::id::NameError;
use tidemark_common::local_url::local_url;
use tidemark_common::tls::{AgentName, ServerTls};

use arguments::{
    ArchiveAct, Arguments, Bodies, CatalogAct, Command, KeysAct, Place, VerifyArguments,
};

const API_DEFAULT: &str = "http://127.0.0.1:8130";

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // A check that cannot be made is neither sound nor a finding.
    let is_check = matches!(
        command,
        Command::Fsck { .. }
            | Command::Bill { .. }
            | Command::Archive { act: ArchiveAct::Verify { .. } }
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
            let bodies = place.bodies();
            return check_files(&place.data_dir()?, bodies, json, scratch.as_deref());
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
        Command::Archive { act } => return look_after_archive(act),
        Command::RestoreFromArchive { place, from, archive, used } => {
            let archive = archive_at(&place.config, archive)?;
            restore_from_archive(&archive, from.as_deref(), &place.data_dir()?, used.used())
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
        Command::Ready { config, url } => ask_ready(config.as_deref(), url),
        Command::DevCerts { dir, agents, drainers, hosts, force } => {
            let existing = if force { Existing::Overwrite } else { Existing::Keep };
            make_certs(&dir, &agents, &drainers, &hosts, existing)
        }
        Command::Backup { place, to } => make_backup(&place.data_dir()?, &to),
        Command::Restore { from, check: true, .. } => {
            let manifest = restore::check(&from, &mut progress)?;
            print(&format!("ok: {}\n", manifest.told()))
        }
        Command::Restore { from, place, check: false, used } => {
            let bodies = place.bodies();
            restore_backup(&from, bodies, &place.data_dir()?, used.used())
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
    let is_done = counts.problems == 0 && counts.awaiting_archive == 0;
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    let target = Target {
        data_dir: &data_dir,
        source: config.catalog_source,
        archive: config.archive.place()?,
    };
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
    hosts: &[String],
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
    let files = dev_certs::make(dir, &agents, hosts, existing, today)?;
    print(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())
}

fn ask_ready(config: Option<&Path>, url: Option<String>) -> Result<()> {
    let url = match (url, config) {
        (Some(url), _) => url,
        (None, Some(config)) => local_url(Config::load(config)?.listen.http),
        (None, None) => API_DEFAULT.to_owned(),
    };
    print(&format!("{}\n", ready::ask(&url)?))
}

fn make_backup(data_dir: &Path, to: &Path) -> Result<()> {
    let begun_at = TimeSource::system().read().wall;
    let manifest = backup::make(data_dir, to, &mut progress)?;
    let noted = BackupNote::of(data_dir).write(begun_at, manifest.rows_file.bytes, to);
    if let Err(error) = noted {
        // Standard error may be closed; the backup is whole all the same.
        let _told = writeln!(
            io::stderr(),
            "tidemark-collector: the backup is whole, but cannot be noted in {}: {error}; \
             tidemark_collector_backup_last_seconds does not show it",
            data_dir.display()
        )
        .is_ok();
    }
    print(&format!("made {}: {}\n", to.display(), manifest.told()))
}

fn restore_backup(from: &Path, bodies: Bodies, data_dir: &Path, used: Used) -> Result<()> {
    let now = TimeSource::system().read().wall;
    let report = restore::restore(from, bodies, data_dir, used, now, &mut progress)?;
    print(&report.told(data_dir))
}

fn look_after_archive(act: ArchiveAct) -> Result<ExitCode> {
    match act {
        ArchiveAct::Verify { config, archive } => {
            let verified = archive::verify::verify(&archive_at(&config, archive)?, &mut |_| ())?;
            print(&verified.told())?;
            Ok(if verified.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ArchiveAct::Forget { place } => {
            task::forget(&place.data_dir()?)?;
            print("the ledger has no archive any more\n")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The archive in `folder`, or the configuration's.
fn archive_at(config: &Path, folder: Option<PathBuf>) -> Result<Archive> {
    if let Some(folder) = folder {
        return Ok(Archive::in_folder(&folder)?);
    }
    let place = Config::load(config)?.archive.place()?;
    let store = place.store.context("the configuration names no archive: give --archive FOLDER")?;
    Ok(Archive::open(store)?)
}

fn restore_from_archive(
    archive: &Archive,
    from: Option<&Path>,
    data_dir: &Path,
    used: Used,
) -> Result<()> {
    let now = TimeSource::system().read().wall;
    let report = archive::restore::restore(archive, from, data_dir, used, now, &mut progress)?;
    print(&report.told(data_dir))
}

fn check_files(
    data_dir: &Path,
    bodies: Bodies,
    json: bool,
    scratch: Option<&Path>,
) -> Result<ExitCode> {
    let report = fsck::run(data_dir, scratch, bodies, &mut progress)?;
    print(&if json { report.json() } else { report.told() })?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify_file(asked: &VerifyArguments) -> Result<ExitCode> {
    let VerifyArguments { file, batches, streams, keys, json } = asked;
    let form = if *json { proofs::Form::Json } else { proofs::Form::Text };
    let keys = keys.as_deref();
    let Verdict { accepted, told } = match batches {
        None => proofs::invoice(file, keys, form)?,
        Some(batches) => {
            let audited = Audited { certificate: file, batches, streams: streams.as_deref() };
            proofs::certificate(audited, keys, form)?
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
