//! What the command line takes.
//!
//! **Owns** commands, options and their help. **Does not own** what they do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tidemark_agent::drain::DrainArguments;
use tidemark_agent::export::ExportArguments;
use tidemark_agent::import::ImportArguments;
use tidemark_agent::replay::{self, Numbers};
use tidemark_agent::top::TopArguments;
use tidemark_common::version;

/// Takes usage events on localhost, makes them durable and ships numbered batches to a collector.
#[derive(Debug, Parser)]
#[command(name = "tidemark-agent", version = version::shown())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent until SIGTERM.
    Run(ConfigFile),
    /// Say whether a configuration is right, and what the agent would do with it.
    CheckConfig(ConfigFile),
    /// Show how a running agent is, and what to do if it is not well.
    Status {
        #[command(flatten)]
        agent: RunningAgent,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell a running agent that it will be stopped soon, before its application has ended: from now on it seals ten times a
    /// second, so that little is left for SIGTERM. For hooks before a pod's or a unit's stop.
    PrepareStop(RunningAgent),
    /// Show one or many running agents, drawn anew every few seconds, the worst first.
    Top(TopArguments),
    /// List, export or replay the events that an agent has rejected and kept.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Show what is in a journal: of the agent that runs, or in a file that no agent holds. Nothing is changed.
    Inspect {
        #[command(flatten)]
        journal: JournalMeant,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Show this batch: its header and its lines.
        #[arg(long, value_name = "N")]
        batch: Option<u64>,
    },
    /// Check all that a journal holds: exit code 0 if it is sound, 1 if not. Nothing is changed.
    Fsck {
        #[command(flatten)]
        journal: JournalMeant,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ship the journals that agents which are gone left in a folder.
    Drain(DrainArguments),
    /// Write what a journal that was set aside holds as JSON, one row a line.
    Export(ExportArguments),
    /// Post what `export` wrote, once, however often it is imported.
    Import(ImportArguments),
    /// Print every configuration key with its default and meaning, as Markdown.
    ConfigReference,
}

impl Command {
    /// Whether nothing but its output is lost with its reader. Of the others the exit code says how they ended.
    pub(crate) fn only_shows(&self) -> bool {
        match self {
            Self::CheckConfig(_)
            | Self::Status { .. }
            | Self::Top(_)
            | Self::DeadLetters(DeadLetters::List { .. } | DeadLetters::Export { .. })
            | Self::Inspect { .. }
            | Self::Fsck { .. }
            | Self::ConfigReference => true,
            Self::Run(_)
            | Self::DeadLetters(DeadLetters::Replay { .. })
            | Self::PrepareStop(_)
            | Self::Drain(_)
            | Self::Export(_)
            | Self::Import(_) => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file [default: /etc/tidemark/agent.toml, or where that is not there the environment alone].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunningAgent {
    /// The agent's configuration file, which says where its admin address is.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub(crate) config: Option<PathBuf>,
    /// The agent's admin address [default: http://127.0.0.1:8128].
    #[arg(long, value_name = "URL")]
    pub(crate) admin: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JournalMeant {
    /// A journal's file that no agent holds, such as one that was set aside.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "admin"])]
    pub(crate) journal: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: RunningAgent,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Show them for people.
    List {
        #[command(flatten)]
        agent: RunningAgent,
        /// Print JSON, one a line.
        #[arg(long)]
        json: bool,
    },
    /// Write them as JSON, one a line.
    Export {
        #[command(flatten)]
        agent: RunningAgent,
        /// A new file to write to; standard output without it.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Have the running agent take them once more. Each leaves in the very commit that makes it an event;
    /// what is rejected again stays, and makes the exit code 1.
    #[command(group(clap::ArgGroup::new("what").required(true)))]
    Replay {
        #[command(flatten)]
        agent: RunningAgent,
        /// As they were received, once what they were rejected for is mended.
        #[arg(long, group = "what")]
        as_is: bool,
        /// As they stand in this file: an export whose texts were mended.
        #[arg(long, value_name = "FILE", group = "what")]
        corrected: Option<PathBuf>,
        /// Only those that were rejected for this reason.
        #[arg(long, conflicts_with = "corrected", value_parser = replay::parse_reason)]
        reason: Option<String>,
        /// Only this number, or those from N to M.
        #[arg(long, value_name = "N..M", conflicts_with = "corrected")]
        number: Option<Numbers>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}
