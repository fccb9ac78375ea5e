//! A client of the acknowledged doors, as an application should be written: every event has an id,
//! and what was not acknowledged is sent again, with the same id, until it is.
//!
//! **Owns** one client's load and what it must come to. Invariant: an event is counted as expected
//! once, when it is acknowledged; the client does not go on before that.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tidemark_common::quantity::Quantity;

use crate::doors::Lines;
use crate::expected::Expected;
use crate::http::Http;
use crate::random::Random;
use crate::wait::until;

/// An agent that is away for longer than this fails the test.
const ACKNOWLEDGED_WAIT: Duration = Duration::from_secs(120);
const BATCH_EVENTS_MAX: u64 = 150;
/// One batch in so many is sent twice although it was acknowledged, as a lost answer makes clients do.
const TWICE_ONE_IN: u64 = 12;

/// Where a client sends to.
#[derive(Debug, Clone)]
pub enum Route {
    /// JSON lines to `events.socket`.
    Events(PathBuf),
    /// CloudEvents to the HTTP door.
    Http(String),
}

/// What several clients share.
#[derive(Debug, Default)]
pub struct Shared {
    stop: AtomicBool,
    abandoned: AtomicBool,
    acknowledged: AtomicU64,
    resent: AtomicU64,
}

impl Shared {
    /// Asks all clients to finish the batch that they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Events acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Batches that had to be sent again.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::SeqCst)
    }
}

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub customers: &'static [&'static str],
    pub meters: &'static [&'static str],
    /// Kept as the dimension `door` where the meter keeps one.
    pub door: &'static str,
    /// Quantities are below this.
    pub quantity_end: u64,
    /// Between batches.
    pub pause: Duration,
}

#[derive(Debug)]
struct Event {
    id: String,
    customer: &'static str,
    meter: &'static str,
    quantity: String,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    name: String,
    route: Route,
    mix: Mix,
    random: Random,
    http: Http,
    lines: Option<Lines>,
    made: u64,
    expected: Expected,
}

impl Client {
    /// `name` is the source of its ids: unique among clients that have ever sent to the stream.
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn new(name: &str, route: Route, mix: Mix, random: Random) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            route,
            mix,
            random,
            http: Http::new()?,
            lines: None,
            made: 0,
            expected: Expected::default(),
        })
    }

    /// Sends until asked to stop. Returns what the usage API must show of it.
    ///
    /// # Errors
    /// When an event is refused, or not acknowledged in time.
    pub fn run(mut self, shared: &Shared) -> Result<Expected> {
        while !shared.stop.load(Ordering::SeqCst) {
            let count = self.random.below(BATCH_EVENTS_MAX).saturating_add(1);
            let batch: Vec<Event> = (0..count).map(|_| self.event()).collect();
            self.send_until_acknowledged(&batch, shared)?;
            if self.random.below(TWICE_ONE_IN) == 0 {
                self.send_until_acknowledged(&batch, shared)?;
            }
            for event in &batch {
                let quantity = Quantity::parse(event.quantity.as_bytes())?;
                self.expected.add(event.customer, event.meter, quantity)?;
            }
            shared.acknowledged.fetch_add(count, Ordering::SeqCst);
            crate::wait::pause(self.mix.pause);
        }
        Ok(self.expected)
    }

    fn event(&mut self) -> Event {
        self.made = self.made.saturating_add(1);
        // Nine fraction digits, so that a sum that is not exact shows.
        let quantity = format!(
            "{}.{:09}",
            self.random.below(self.mix.quantity_end),
            self.random.below(1_000_000_000)
        );
        Event {
            id: format!("{}-{}", self.name, self.made),
            customer: self.random.pick::<&str>(self.mix.customers),
            meter: self.random.pick::<&str>(self.mix.meters),
            quantity,
        }
    }

    fn send_until_acknowledged(&mut self, batch: &[Event], shared: &Shared) -> Result<()> {
        let what = format!("the acknowledgement of a batch of {}", self.name);
        let refused = until(&what, ACKNOWLEDGED_WAIT, || match self.send(batch) {
            Ok(refused) => Ok(refused),
            Err(_) if shared.abandoned.load(Ordering::SeqCst) => {
                Ok(Some("the test has failed elsewhere".to_owned()))
            }
            Err(error) => {
                self.lines = None;
                shared.resent.fetch_add(1, Ordering::SeqCst);
                Err(format!("{error:#}"))
            }
        })?;
        match refused {
            None => Ok(()),
            Some(refused) => bail!("{} was refused: {refused}", self.name),
        }
    }

    /// Sends a batch once. An error means: not acknowledged, send again.
    fn send(&mut self, batch: &[Event]) -> Result<Option<String>> {
        match &self.route {
            Route::Events(path) => {
                let mut lines = match self.lines.take() {
                    Some(lines) => lines,
                    None => Lines::to(path)?,
                };
                lines.send(&self.json_lines(batch), u64::try_from(batch.len())?)?;
                let refusals = lines.wait_durable()?;
                self.lines = Some(lines);
                Ok(refusals.first().map(|refusal| format!("{refusal:?}")))
            }
            Route::Http(url) => {
                let answer = self.http.post(url, CLOUDEVENTS_BATCH, self.cloud_events(batch))?;
                ensure!(answer.status < 500, "{} {}", answer.status, answer.body);
                let refused = answer.status != 204 && !nothing_rejected(&answer.body);
                Ok(refused.then(|| format!("{} {}", answer.status, answer.body)))
            }
        }
    }

    fn json_lines(&self, batch: &[Event]) -> Vec<u8> {
        let mut text = String::new();
        for event in batch {
            let line = json!({
                "meter": event.meter, "customer": event.customer, "quantity": event.quantity,
                "id": event.id, "source": self.name, "dimensions": {"door": self.mix.door},
            });
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text.into_bytes()
    }

    fn cloud_events(&self, batch: &[Event]) -> String {
        let events: Vec<_> = batch
            .iter()
            .map(|event| {
                json!({
                    "specversion": "1.0", "type": event.meter, "source": self.name,
                    "id": event.id, "subject": event.customer,
                    "data": {"value": event.quantity, "door": self.mix.door},
                })
            })
            .collect();
        json!(events).to_string()
    }
}

/// Several CloudEvents in one body.
pub const CLOUDEVENTS_BATCH: &str = "application/cloudevents-batch+json";
/// One CloudEvent.
pub const CLOUDEVENT: &str = "application/cloudevents+json";

fn nothing_rejected(body: &str) -> bool {
    let answer: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let rejected = answer.as_ref().and_then(|answer| answer.get("rejected")?.as_array());
    rejected.is_some_and(Vec::is_empty)
}

/// Runs clients on threads of their own while `during` runs, then stops them and waits until all that
/// they sent is acknowledged.
///
/// # Errors
/// What a client or `during` says.
pub fn with_clients(
    clients: Vec<Client>,
    during: impl FnOnce(&Shared) -> Result<()>,
) -> Result<Expected> {
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(|| client.run(&shared))).collect();
        let outcome = during(&shared);
        shared.abandoned.store(outcome.is_err(), Ordering::SeqCst);
        shared.stop();
        let joined: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
        // What went wrong first is the cause of what the clients say.
        outcome?;
        let mut expected = Expected::default();
        for client in joined {
            let sent = client.ok().context("a client panicked")?;
            expected.merge(&sent.context("a client failed")?)?;
        }
        Ok(expected)
    })
}
