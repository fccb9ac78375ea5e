//! What the collector's command line may say.
//!
//! **Owns** names, defaults and the words of `--help`. **Does not own** what a command does (`main.rs`).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use tidemark_collector::config::Config;
use tidemark_collector::ledger::store::StoredBodies;
use tidemark_collector::restore::Used;
use tidemark_common::time::Timestamp;
use tidemark_common::version;

/// Admits numbered usage batches exactly once, keeps the ledger, answers live bills.
#[derive(Debug, Parser)]
#[command(name = "tidemark-collector", version = version::shown())]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// Asks a running collector whether it is ready, over its API: exit code 0 if it is, 1 if not. It needs no token.
    Ready {
        /// The collector's configuration, which says where its API is.
        #[arg(long, conflicts_with = "url")]
        config: Option<PathBuf>,
        /// The API's address [default: http://127.0.0.1:8130].
        #[arg(long)]
        url: Option<String>,
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
        /// A DNS name or address by which agents reach the collector, besides localhost; may be given several times.
        #[arg(long = "host")]
        hosts: Vec<String>,
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
        #[command(flatten)]
        used: UsedArgs,
    },
    /// Makes a ledger of its archive, in a folder without one: of the archive alone, or of a backup or an older ledger
    /// which the archive brings up to its end.
    RestoreFromArchive {
        #[command(flatten)]
        place: Place,
        /// A folder that `backup` made, or that holds an older ledger.
        #[arg(long)]
        from: Option<PathBuf>,
        /// The archive's folder, in place of the configuration's.
        #[arg(long)]
        archive: Option<PathBuf>,
        #[command(flatten)]
        used: UsedArgs,
    },
    /// Looks after an archive.
    Archive {
        #[command(subcommand)]
        act: ArchiveAct,
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
pub(super) struct VerifyArguments {
    /// `invoice.json`; with --batches `certificate.json`.
    pub(super) file: PathBuf,
    /// The archive's folder: computes a certificate's chains, tree and sums again.
    #[arg(long, value_name = "DIR")]
    pub(super) batches: Option<PathBuf>,
    /// What GET /v1/certificates/{number}/streams answered.
    #[arg(long, requires = "batches")]
    pub(super) streams: Option<PathBuf>,
    /// What GET /.well-known/tidemark-keys answered: whose signatures are accepted.
    #[arg(long)]
    pub(super) keys: Option<PathBuf>,
    /// One JSON object on stdout.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeysAct {
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
pub(super) enum CatalogAct {
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

#[derive(Debug, Subcommand)]
pub(super) enum ArchiveAct {
    /// Reads all of it and says what is wrong, and where: exit code 0 sound, 1 findings, 2 cannot be read.
    Verify {
        #[arg(long, default_value = "/etc/tidemark/collector.toml")]
        config: PathBuf,
        /// The archive's folder, in place of the configuration's.
        #[arg(long)]
        archive: Option<PathBuf>,
    },
    /// States that a stopped collector's ledger has no archive any more: it books again, and begins another where one is
    /// configured. What the archive alone held is then lost: numbers that were given since a backup may be given twice.
    Forget {
        #[command(flatten)]
        place: Place,
    },
}

/// What the lost ledger is known to have used.
#[derive(Debug, Args)]
pub(super) struct UsedArgs {
    /// An incarnation that is known to be used: the restored ledger's is above it.
    #[arg(long, default_value_t = 0)]
    pub(super) incarnation_min: u32,
    /// The latest ledger time that anybody has seen, as RFC 3339: it begins no earlier.
    #[arg(long)]
    pub(super) ledger_time_min: Option<jiff::Timestamp>,
    /// Restores although the clock is over 400 days ahead of the backup's time, which then goes there for good.
    #[arg(long)]
    pub(super) trust_clock: bool,
}

impl UsedArgs {
    pub(super) fn used(&self) -> Used {
        let millis = self.ledger_time_min.map_or(0, jiff::Timestamp::as_millisecond);
        let (incarnation, trust_clock) = (self.incarnation_min, self.trust_clock);
        Used { incarnation, ledger_time: Timestamp(millis), trust_clock }
    }
}

/// Where the ledger is.
#[derive(Debug, Args)]
pub(super) struct Place {
    #[arg(long, default_value = "/etc/tidemark/collector.toml")]
    pub(super) config: PathBuf,
    /// The ledger's folder, in place of the configuration's.
    #[arg(long)]
    pub(super) data_dir: Option<PathBuf>,
}

/// Bodies that have left the ledger for its archive.
pub(super) type Bodies = Option<Arc<dyn StoredBodies>>;

impl Place {
    /// Those in the archive that the configuration names, if it can be read.
    pub(super) fn bodies(&self) -> Bodies {
        Config::load(&self.config).ok()?.archive.place().ok()?.bodies()
    }

    pub(super) fn data_dir(self) -> Result<PathBuf> {
        match self.data_dir {
            Some(folder) => Ok(folder),
            None => Ok(Config::load(&self.config)?.data_dir),
        }
    }
}
