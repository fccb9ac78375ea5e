//! The command line: arguments, logs, signals, exit codes.
//!
//! **Owns** what is printed, and the exit code: 0 well, 1 an error, 2 wrong arguments, 3 a conflict that
//! needs a person. **Does not own** the agent: [`tidemark_agent::run`] is all of it.

mod arguments;
mod heap;

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use tidemark_agent::Ended;
use tidemark_agent::admin::DeadLetterShown;
use tidemark_agent::admin::client::{AdminClient, ClientError};
use tidemark_agent::admin::dead_letter::read_offline;
use tidemark_agent::admin::replay::{ReplayAnswer, Selection};
use tidemark_agent::config::{Config, ENVIRONMENT, LogFormat, LogLevel, check, reference};
use tidemark_agent::drain::drain;
use tidemark_agent::export;
use tidemark_agent::import::import;
use tidemark_agent::inspect::{JournalAt, LookError};
use tidemark_agent::paint::Paint;
use tidemark_agent::replay::{self, What};
use tidemark_agent::status::text;
use tidemark_agent::top::{Screen, TopArguments, top};
use tidemark_common::id::Sequence;
use tidemark_common::local_url::local_url;
use tidemark_common::time::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use arguments::{Arguments, Command, DeadLetters, JournalMeant, RunningAgent};

const ADMIN_DEFAULT: &str = "http://127.0.0.1:8128";
/// The exit code after a conflict: restarting the agent will not help.
const EXIT_CONFLICT: u8 = 3;
/// Reads of the disk that nobody waits for any more may take this long when the agent ends.
const LEFT_BEHIND_MAX: Duration = Duration::from_millis(500);
/// Of one dead letter, a list shows this many characters.
const LISTED_CHARACTERS_MAX: usize = 100;

fn main() -> ExitCode {
    heap::keep_little();
    let arguments = Arguments::parse();
    let only_shows = arguments.command.only_shows();
    match execute(arguments.command) {
        Ok(code) => code,
        // Whoever reads the output has seen enough, as `head` does.
        Err(error) if only_shows && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nowhere left to say so.
            drop(writeln!(io::stderr().lock(), "tidemark-agent: {}", told(&error)));
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

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    match command {
        Command::Run(file) => {
            let ended = runtime.block_on(run(file.config.as_deref()));
            // Dropping it would wait for a thread that may be waiting for the journal's lock.
            runtime.shutdown_timeout(LEFT_BEHIND_MAX);
            ended
        }
        Command::CheckConfig(file) => check_config(file.config.as_deref()),
        Command::Status { agent, json } => runtime.block_on(status(&agent, json)),
        Command::PrepareStop(agent) => runtime.block_on(prepare_stop(&agent)),
        Command::Top(arguments) => runtime.block_on(draw(&arguments)),
        Command::Inspect { journal, json, batch } => {
            runtime.block_on(inspect(&journal, json, batch))
        }
        Command::Fsck { journal, json } => runtime.block_on(fsck(&journal, json)),
        Command::DeadLetters(DeadLetters::List { agent, json }) => {
            let letters = runtime.block_on(dead_letters(&agent))?;
            let mut out = io::stdout().lock();
            if json { export_letters(&mut out, &letters) } else { list(&mut out, &letters) }
        }
        Command::DeadLetters(DeadLetters::Export { agent, output }) => {
            let letters = runtime.block_on(dead_letters(&agent))?;
            match output {
                Some(path) => export_to_file(&path, &letters),
                None => export_letters(&mut io::stdout().lock(), &letters),
            }
        }
        Command::DeadLetters(DeadLetters::Replay {
            agent,
            as_is: _,
            corrected,
            reason,
            number,
            json,
        }) => {
            let from = number.map_or(0, |number| number.from);
            let selection = Selection { reason, from, to: number.map(|number| number.to) };
            let what = corrected.map_or(What::AsIs(selection), What::Corrected);
            runtime.block_on(replay_dead_letters(&agent, &what, json))
        }
        Command::Drain(arguments) => {
            let config = load(Some(&arguments.config))?;
            start_logs(&config);
            let code = runtime.block_on(drain(&arguments, &config, &mut io::stdout().lock()))?;
            Ok(ExitCode::from(code))
        }
        Command::Export(arguments) => {
            export::export(&arguments, &mut io::stdout().lock(), &mut io::stderr().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Import(arguments) => {
            let config = load(Some(&arguments.config))?;
            start_logs(&config);
            let code = runtime.block_on(import(&arguments, &config, &mut io::stdout().lock()))?;
            Ok(ExitCode::from(code))
        }
        Command::ConfigReference => {
            io::stdout().lock().write_all(reference::markdown().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = load(file)?;
    start_logs(&config);
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let asked = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; once more ends at once");
        // What is accepted is durable, so ending at once loses nothing: it is shipped after the next start.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    };
    match tidemark_agent::run(config, asked).await.context("the agent ended")? {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::Conflict { message } => {
            writeln!(
                io::stderr().lock(),
                "Conflict: {message}\n\
                 What to do: start the agent again. It begins a new stream with what is known not to be posted, and \
                 keeps this journal as JOURNAL.conflict-STREAM, in the same folder. Keep that file; `tidemark-agent \
                 export` shows what it holds."
            )?;
            Ok(ExitCode::from(EXIT_CONFLICT))
        }
    }
}

fn check_config(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let report = check::check(&load(file)?, now()?);
    let mut out = io::stdout().lock();
    writeln!(out, "With {} the agent would", shown(file))?;
    for line in &report.would {
        writeln!(out, "  {line}")?;
    }
    if report.problems.is_empty() {
        writeln!(out, "The configuration is right.")?;
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    let shown: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    bail!("{}", shown.join("\n"));
}

async fn status(agent: &RunningAgent, json: bool) -> anyhow::Result<ExitCode> {
    let status = client(agent)?.status().await?;
    print(&status, text::human(&status, Paint::of(&io::stdout())), json)?;
    Ok(ExitCode::SUCCESS)
}

async fn prepare_stop(agent: &RunningAgent) -> anyhow::Result<ExitCode> {
    let prepared = client(agent)?.prepare_stop().await?;
    writeln!(
        io::stdout().lock(),
        "The agent seals every {} ms until it is stopped.",
        prepared.seal_interval_millis
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn draw(arguments: &TopArguments) -> anyhow::Result<ExitCode> {
    let screen = || {
        let out = io::stdout();
        let size = terminal_size::terminal_size_of(&out);
        Screen {
            is_terminal: out.is_terminal(),
            paint: Paint::of(&out),
            size: size.map(|(columns, rows)| (columns.0, rows.0)),
        }
    };
    let clock = || now().unwrap_or_default();
    top(arguments, ADMIN_DEFAULT, screen, clock, &mut io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The file that is named; or the configured one, unless an agent holds it: then that agent.
fn journal_at(meant: &JournalMeant) -> anyhow::Result<JournalAt> {
    if let Some(path) = &meant.journal {
        return Ok(JournalAt::file(path, None)?);
    }
    if let Some(path) = &meant.agent.config {
        let journal = load(Some(path))?.journal;
        match JournalAt::file(&journal.path, Some(journal.bytes_max)) {
            Err(LookError::Held { .. }) => {}
            found => return Ok(found?),
        }
    }
    Ok(JournalAt::Agent(client(&meant.agent)?))
}

async fn inspect(meant: &JournalMeant, json: bool, batch: Option<u64>) -> anyhow::Result<ExitCode> {
    let journal = journal_at(meant)?;
    match batch {
        Some(sequence) => {
            let batch = journal.batch(Sequence(sequence)).await?;
            print(&batch, batch.text(), json)?;
        }
        None => {
            let inspection = journal.inspect().await?;
            print(&inspection, inspection.text(), json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn fsck(meant: &JournalMeant, json: bool) -> anyhow::Result<ExitCode> {
    let fsck = journal_at(meant)?.fsck().await?;
    print(&fsck, fsck.text(), json)?;
    Ok(if fsck.sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(shown: &impl serde::Serialize, text: String, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, shown)?;
        writeln!(out)?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// From the running agent; if none runs, from the journal that the configuration names.
async fn dead_letters(agent: &RunningAgent) -> anyhow::Result<Vec<DeadLetterShown>> {
    let error = match ask_dead_letters(&client(agent)?).await {
        Ok(letters) => return Ok(letters),
        Err(error) => error,
    };
    match (error.is_unreachable(), &agent.config) {
        (true, Some(path)) => Ok(read_offline(&load(Some(path))?.journal.path)?),
        (true, None) => bail!(
            "{error}\nWith --config FILE the journal of an agent that is not running is read instead."
        ),
        (false, _) => Err(error.into()),
    }
}

async fn ask_dead_letters(client: &AdminClient) -> Result<Vec<DeadLetterShown>, ClientError> {
    let mut letters = Vec::new();
    let mut from = Some(0);
    while let Some(number) = from {
        let (page, next) = client.dead_letters(number).await?;
        letters.extend(page);
        from = next;
    }
    Ok(letters)
}

async fn replay_dead_letters(
    agent: &RunningAgent,
    what: &What,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (answer, ended) = replay::replay(&client(agent)?, what).await;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
    } else if ended.is_ok() || answer != ReplayAnswer::default() {
        replay::show(&mut out, &answer)?;
    }
    ended?;
    Ok(if answer.kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(out: &mut impl Write, letters: &[DeadLetterShown]) -> anyhow::Result<ExitCode> {
    let mut remedies = std::collections::BTreeMap::new();
    for letter in letters {
        let DeadLetterShown { number, time, door, reason, remedy, text, hex } = letter;
        let shown: String = match (text, hex) {
            (Some(text), _) => printable(text).take(LISTED_CHARACTERS_MAX).collect(),
            (None, hex) => {
                hex.iter().flat_map(|hex| hex.chars()).take(LISTED_CHARACTERS_MAX).collect()
            }
        };
        writeln!(out, "{number:>8}  {time}  {door:<13}  {reason:<19}  {shown}")?;
        remedies.insert(reason, remedy);
    }
    if letters.is_empty() {
        writeln!(out, "There are no dead letters.")?;
    } else {
        writeln!(out)?;
    }
    for (reason, remedy) in remedies {
        writeln!(out, "{reason}: {remedy}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As received, but for control characters: they would steer the reader's terminal.
fn printable(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(|character| {
        let escaped = character.is_control().then(|| character.escape_debug());
        let plain = escaped.is_none().then_some(character);
        escaped.into_iter().flatten().chain(plain)
    })
}

fn export_letters(out: &mut impl Write, letters: &[DeadLetterShown]) -> anyhow::Result<ExitCode> {
    for letter in letters {
        serde_json::to_writer(&mut *out, letter)?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn export_to_file(path: &Path, letters: &[DeadLetterShown]) -> anyhow::Result<ExitCode> {
    let file = std::fs::File::create_new(path).with_context(|| {
        format!("failed to make {}; name a file that does not exist yet", path.display())
    })?;
    let mut out = io::BufWriter::new(file);
    export_letters(&mut out, letters)
        .with_context(|| format!("failed to write {}", path.display()))?;
    out.get_ref().sync_all().with_context(|| format!("failed to write {}", path.display()))?;
    writeln!(io::stderr().lock(), "wrote {} dead letters to {}", letters.len(), path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The admin address of the agent that is meant.
fn client(agent: &RunningAgent) -> anyhow::Result<AdminClient> {
    let url = match (&agent.config, &agent.admin) {
        (_, Some(url)) => url.clone(),
        (Some(path), None) => local_url(load(Some(path))?.admin.listen),
        (None, None) => ADMIN_DEFAULT.to_owned(),
    };
    Ok(AdminClient::new(&url)?)
}

/// What the configuration is called.
fn shown(named: Option<&Path>) -> String {
    Config::file_meant(named)
        .map_or_else(|| ENVIRONMENT.to_owned(), |path| path.display().to_string())
}

fn load(file: Option<&Path>) -> anyhow::Result<Config> {
    Config::load_any(file).map_err(|error| {
        let file = shown(file);
        match error.problems.as_slice() {
            // It names the file already.
            [only] if only.place.starts_with(&file) => anyhow::anyhow!("{only}"),
            [_] => anyhow::anyhow!("{file} has a problem:\n{error}"),
            [] | [_, _, ..] => anyhow::anyhow!("{file} has problems:\n{error}"),
        }
    })
}

fn start_logs(config: &Config) {
    let level = match config.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let logs = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => logs.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell reads the clock, to say when certificates expire"
)]
fn now() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("this machine's clock stands before 1970")?;
    Ok(Timestamp(i64::try_from(since.as_millis())?))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|error| error.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_hold_together() {
        Arguments::command().debug_assert();
    }

    fn letter(number: u64, text: &str) -> DeadLetterShown {
        DeadLetterShown {
            number,
            time: "2026-01-02T03:04:05.000Z".to_owned(),
            door: "udp".to_owned(),
            reason: "sampled".to_owned(),
            remedy: "send every event".to_owned(),
            text: Some(text.to_owned()),
            hex: None,
        }
    }

    #[test]
    fn an_error_names_each_cause_once() {
        let cause = || io::Error::from_raw_os_error(98);
        let error =
            anyhow::Error::new(cause()).context("failed to bind").context("the agent ended");
        assert_eq!(told(&error), format!("the agent ended: failed to bind: {}", cause()));
        let holds_it =
            anyhow::Error::new(cause()).context(format!("failed to bind: {}; move it", cause()));
        assert_eq!(told(&holds_it), format!("failed to bind: {}; move it", cause()));
    }

    #[test]
    fn a_list_for_people() {
        let mut out = Vec::new();
        list(&mut out, &[letter(7, "{\"a\":\"b\\c\"}\u{1b}[2J\n"), letter(8, &"x".repeat(500))])
            .unwrap();
        let expected = format!(
            "       7  2026-01-02T03:04:05.000Z  udp            sampled              {{\"a\":\"b\\c\"}}\\u{{1b}}[2J\\n\n       8  \
             2026-01-02T03:04:05.000Z  udp            sampled              {}\n\nsampled: send every event\n",
            "x".repeat(100)
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_export_for_machines() {
        let mut out = Vec::new();
        export_letters(&mut out, &[letter(7, "a\nb"), letter(8, "c")]).unwrap();
        let lines: Vec<DeadLetterShown> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines, [letter(7, "a\nb"), letter(8, "c")]);
    }
}
