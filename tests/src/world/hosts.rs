//! Hosts' turns: starting what is down, stepping what runs, burying what has ended.

use tidemark_agent::intake::answer::{Answer, Answered};
use tidemark_agent::journal::OpenError;
use tidemark_agent::session::Monotonic;

use super::agent::{self, AgentHost, Started, Turn};
use super::collector::{self, CollectorHost};
use super::net::Side;
use super::oracle::Broken;
use super::{EPOCH, World, here, uplink};

/// A supervisor starts what has ended after this long.
const RESTART_MILLIS: u64 = 400;
/// Of so many answers to applications one is lost.
const ANSWERS_LOST_ONE_IN: u64 = 25;
/// An idle collector has a turn this often.
const COLLECTOR_IDLE_MILLIS: u64 = 250;

impl AgentHost {
    /// When it wants a turn.
    pub(super) fn due(&self) -> u64 {
        match (&self.process, self.start_at) {
            (Some(_), _) => self.step_at.max(self.paused_until),
            (None, Some(start)) => start,
            (None, None) => u64::MAX,
        }
    }
}

impl CollectorHost {
    pub(super) fn due(&self) -> u64 {
        match (&self.process, self.start_at) {
            (Some(_), _) => self.step_at.max(self.paused_until),
            (None, Some(start)) => start,
            (None, None) => u64::MAX,
        }
    }
}

impl World {
    pub(super) fn step_hosts(&mut self) -> Result<(), Broken> {
        for (side, host) in self.network.take_touched() {
            match side {
                Side::Agent if host < self.agents.len() => self.agents[host].step_at = self.now,
                Side::Agent => self.hostile.next_at = self.now,
                Side::Collector => self.collectors[host].step_at = self.now,
            }
        }
        for number in 0..self.collectors.len() {
            if self.collectors[number].due() <= self.now {
                self.step_collector(number)?;
            }
        }
        for number in 0..self.agents.len() {
            if self.agents[number].due() <= self.now {
                self.step_agent(number)?;
            }
        }
        if self.hostile.next_at <= self.now {
            self.step_hostile();
        }
        Ok(())
    }

    fn step_agent(&mut self, number: usize) -> Result<(), Broken> {
        here::enter(self.agents[number].clocks(EPOCH, self.now));
        if self.agents[number].process.is_none() {
            return self.start_agent(number);
        }
        let stop_by = self.agents[number].process.as_ref().and_then(|process| process.stop_by);
        if stop_by.is_some_and(|by| by <= self.now) {
            self.story.count("recovery agent ended after its grace");
            self.end_agent(number, true);
            return Ok(());
        }
        let mut answers = Vec::new();
        let turn = self.turn_agent(number, &mut answers)?;
        self.tell_clients(number, answers);
        match turn {
            Turn::Running => Ok(()),
            Turn::Closed => {
                self.story
                    .tell(self.now, || format!("agent {number}: closed its stream and ended"));
                self.story.count("recovery stream closed");
                self.end_agent(number, true);
                Ok(())
            }
            Turn::Conflict(message) => {
                let stream = self.agents[number].stream;
                self.end_agent(number, true);
                match stream {
                    Some(stream) if self.oracle.contested.contains(&stream) => Ok(()),
                    _ => Err(format!("agent {number}: a conflict for no reason: {message}")),
                }
            }
            Turn::Failed(reason) => {
                self.story.tell(self.now, || format!("agent {number}: ended: {reason}"));
                self.story.count("recovery agent ended by an error");
                self.end_agent(number, true);
                Ok(())
            }
        }
    }

    fn turn_agent(
        &mut self,
        number: usize,
        answers: &mut Vec<(usize, Option<Answered>)>,
    ) -> Result<Turn, Broken> {
        let mut shipped = Vec::new();
        let Self { agents, network, random, story, now, .. } = self;
        let host = &mut agents[number];
        let Some(process) = &mut host.process else { return Ok(Turn::Running) };
        let mut around = uplink::Surroundings {
            host: number,
            collectors: &host.collectors,
            address: &mut host.address,
            network,
            random,
            story,
            shipped: &mut shipped,
            now: *now,
            age: Monotonic(*now - process.begun),
        };
        let mut turn = process.turn(answers);
        if turn == Turn::Running {
            turn = process.uplink.turn(&mut around);
        }
        // A process that its disk has stopped says nothing more: neither answers nor frames.
        let stopped = !host.disk.is_held_by(process.id);
        if stopped {
            answers.clear();
            self.story.count("fault process killed at an operation of its disk");
            return Ok(Turn::Failed("killed at an operation of its disk".to_owned()));
        }
        let busy = process.uplink.is_waiting() || !answers.is_empty();
        let idle = if busy { 1 } else { process.wait_millis() };
        let timeout = process.uplink.session.poll_timeout().map(|due| due.0 + process.begun);
        let due = [timeout, process.stop_by].into_iter().flatten().min().unwrap_or(u64::MAX);
        host.step_at = (self.now + idle).min(due).max(self.now + 1);
        for batch in shipped {
            self.oracle.shipped(batch)?;
        }
        Ok(turn)
    }

    fn tell_clients(&mut self, number: usize, answers: Vec<(usize, Option<Answered>)>) {
        let Some(stream) = self.agents[number].stream else { return };
        for (client, answered) in answers {
            let client = &mut self.clients[client];
            client.asked = None;
            // Some answers are lost on their way: the application sends again.
            if client.random.below(ANSWERS_LOST_ONE_IN) == 0 {
                self.story.count("fault answer lost");
                continue;
            }
            let (Some(sent), Some(Answered::Durable(answers))) = (&client.waits, answered) else {
                continue;
            };
            let rejected = answers.iter().filter(|answer| matches!(answer, Answer::Rejected(_)));
            let rejected = u64::try_from(rejected.count()).expect("a few lines");
            *self.load.rejected.entry(stream).or_default() += rejected;
            // Bad lines are rejected by number, so the others follow in order.
            let good: Vec<Answer> = answers
                .iter()
                .zip(&sent.lines)
                .filter(|(_, line)| !line.contains("\"much\""))
                .map(|(answer, _)| *answer)
                .collect();
            let accepted: Vec<usize> = sent
                .events
                .iter()
                .zip(good)
                .filter(|(_, answer)| matches!(answer, Answer::Accepted | Answer::Duplicate))
                .map(|(event, _)| *event)
                .collect();
            self.load.tell(&accepted, stream);
            client.waits = None;
        }
    }

    fn start_agent(&mut self, number: usize) -> Result<(), Broken> {
        let id = self.process_number();
        let host = &mut self.agents[number];
        let was_known = host.stream;
        match host.start(id, self.now, self.bug) {
            Started::Running => {
                host.step_at = self.now;
                self.story.count("recovery agent started");
                self.check_started(number, was_known)?;
            }
            Started::Held => {
                self.story.count("fault second process on a disk");
                host.start_at = Some(self.now + RESTART_MILLIS);
            }
            Started::SetAside(stream) => {
                self.story.count("recovery journal set aside");
                self.story
                    .tell(self.now, || format!("agent {number}: stream {stream} is set aside"));
                self.agents[number].start_at = Some(self.now + 1);
            }
            Started::Failed(OpenError::Corrupt { reason }) if self.agents[number].is_placed => {
                return Err(format!("agent {number}: its journal is damaged: {reason}"));
            }
            Started::Failed(error) => {
                self.story.tell(self.now, || format!("agent {number}: did not start: {error}"));
                self.story.count("recovery agent did not start");
                self.agents[number].start_at = Some(self.now + RESTART_MILLIS);
            }
        }
        Ok(())
    }

    /// Accepted means durable: a journal that is opened again holds at least what applications were told.
    fn check_started(
        &self,
        number: usize,
        was_known: Option<tidemark_common::id::StreamId>,
    ) -> Result<(), Broken> {
        let Some(process) = &self.agents[number].process else { return Ok(()) };
        let state = process.state();
        agent::conserved(&state)?;
        if was_known != Some(state.stream) || self.oracle.contested.contains(&state.stream) {
            return Ok(());
        }
        let told = self.load.events.iter().zip(0_usize..).filter(|(event, number)| {
            event.told.is_some_and(|told| told.stream == state.stream)
                && !self.oracle.destroyed.contains(number)
        });
        let told = u64::try_from(told.count()).expect("a world is small");
        if state.accepted < told {
            return Err(format!(
                "told and not durable: stream {} holds {} events of {told}",
                state.stream, state.accepted
            ));
        }
        Ok(())
    }

    /// The process is gone. If it is to come again, its supervisor starts it.
    pub(super) fn end_agent(&mut self, number: usize, again: bool) {
        let host = &mut self.agents[number];
        if let Some(process) = host.process.take() {
            // Whatever its destructors try, its disk does not hear them.
            host.disk.release();
            drop(process);
        }
        host.start_at = again.then_some(self.now + RESTART_MILLIS);
        host.paused_until = 0;
        self.vanish(Side::Agent, number);
        if number == super::spare(self.agents.len()) {
            self.agents[number].start_at = None;
        }
    }

    fn step_collector(&mut self, number: usize) -> Result<(), Broken> {
        here::enter(self.collectors[number].clocks(EPOCH, self.now));
        if self.collectors[number].process.is_none() {
            return self.start_collector(number);
        }
        let mut acknowledged = Vec::new();
        let host = &mut self.collectors[number];
        let Some(process) = &mut host.process else { return Ok(()) };
        let mut around = collector::Surroundings {
            number,
            network: &mut self.network,
            names: &self.names,
            story: &mut self.story,
            acknowledged: &mut acknowledged,
            archived: &mut self.raw_events,
            throttles: host.throttled_until > self.now,
            now: self.now,
        };
        let done = process.turn(host.fold_millis, &mut around);
        let read = process.ledger.now();
        let through =
            process.ledger.snapshot().ok().and_then(|held| held.complete_through().through);
        host.step_at = self.now + COLLECTOR_IDLE_MILLIS;
        for said in acknowledged {
            self.oracle.acknowledged(number, said);
        }
        if !self.collectors[number].is_whole() {
            self.story.count("fault process killed at an operation of its disk");
            self.end_collector(number);
            return Ok(());
        }
        if let Err(error) = done {
            self.story.tell(self.now, || format!("collector {number}: ended: {error}"));
            self.story.count("recovery collector ended by an error");
            self.end_collector(number);
            return Ok(());
        }
        self.oracle.ledger_time(number, read)?;
        if number == 0 {
            self.load.stamp(read);
            // What is said to be complete now must be there now.
            if through != self.through {
                self.through = through;
                self.check_at = self.now;
            }
        }
        Ok(())
    }

    fn start_collector(&mut self, number: usize) -> Result<(), Broken> {
        let id = self.process_number();
        let host = &mut self.collectors[number];
        match host.start(id, self.now, self.bug) {
            Ok(true) => {
                host.step_at = self.now;
                self.network.collector_up(number, true);
                self.story.count("recovery collector started");
                let process = self.collectors[number].process.as_ref();
                let time = process.map(|process| process.ledger.now().millis_since(EPOCH));
                self.story.tell(self.now, || {
                    format!("collector {number}: started, ledger time {time:?} ms")
                });
                self.check_at = self.now;
            }
            Ok(false) => {
                self.story.count("fault second process on a disk");
                host.start_at = Some(self.now + RESTART_MILLIS);
            }
            Err(error) => {
                if error.contains("restore it from a backup") {
                    return Err(format!("collector {number}: {error}"));
                }
                self.story.tell(self.now, || format!("collector {number}: did not start: {error}"));
                self.story.count("recovery collector did not start");
                self.collectors[number].start_at = Some(self.now + RESTART_MILLIS);
            }
        }
        Ok(())
    }

    pub(super) fn end_collector(&mut self, number: usize) {
        let host = &mut self.collectors[number];
        if let Some(process) = host.process.take() {
            host.release();
            drop(process);
        }
        host.start_at = Some(self.now + RESTART_MILLIS);
        host.paused_until = 0;
        self.vanish(Side::Collector, number);
    }
}
