//! Journals and ledgers that are lost, copied, rolled back, drained and restored.
//!
//! **Owns** how each is done, and what the oracle is told of it. **Does not own** when: `fault.rs`.

use super::backup::Backup;
use super::disk::Disk;
use super::fault::Undo;
use super::oracle::Broken;
use super::planted::Bug;
use super::{EPOCH, World, here, spare};

impl World {
    /// What was told by a journal that is destroyed now is lost with it, as far as it is not posted.
    fn destroy(&mut self, host: usize) {
        let Some(stream) = self.agents[host].stream else { return };
        self.plan.has_lost_disks = true;
        let of_it = self
            .load
            .events
            .iter()
            .zip(0..)
            .filter(|(event, _)| event.told.is_some_and(|told| told.stream == stream));
        self.oracle.destroyed.extend(of_it.map(|(_, number)| number));
        self.load.rejected.remove(&stream);
        for client in self.clients.iter_mut().filter(|client| client.host == host) {
            client.waits = None;
        }
    }

    pub(super) fn fresh_disk(&mut self, host: usize) {
        self.destroy(host);
        self.end_agent(host, true);
        self.agents[host].disk = Disk::default();
        self.agents[host].is_placed = false;
        self.agents[host].snapshot = None;
        if self.bug != Some(Bug::StreamReused) {
            self.agents[host].stream = None;
        }
    }

    /// Copies of a journal that belongs to no ledger yet may go to different ones, neither of which can know.
    fn may_copy(&self, host: usize) -> bool {
        let process = self.agents[host].process.as_ref();
        let is_pinned = process.is_some_and(|process| process.state().ledger.is_some());
        is_pinned || !self.plan.other_ledger
    }

    pub(super) fn take_snapshot(&mut self, host: usize) {
        let may_copy = self.may_copy(host);
        let host = &mut self.agents[host];
        if let (Some(_), Some(stream), true) = (&host.process, host.stream, may_copy) {
            host.snapshot = Some((host.disk.copy(), stream));
        }
    }

    pub(super) fn roll_back(&mut self, host: usize) -> bool {
        let Some((disk, stream)) = self.agents[host].snapshot.take() else {
            self.take_snapshot(host);
            return false;
        };
        if self.agents[host].stream != Some(stream) {
            self.destroy(host);
        }
        self.oracle.contested.insert(stream);
        self.end_agent(host, true);
        self.agents[host].disk = disk;
        self.agents[host].is_placed = true;
        self.agents[host].stream = Some(stream);
        true
    }

    pub(super) fn clone_disk(&mut self, host: usize) -> bool {
        let spare = spare(self.agents.len());
        let is_free = self.agents[spare].process.is_none();
        let (Some(stream), true) = (self.agents[host].stream, is_free && self.may_copy(host))
        else {
            return false;
        };
        self.oracle.contested.insert(stream);
        let disk = self.agents[host].disk.copy();
        self.occupy_spare(host, disk);
        true
    }

    /// The spare host begins to run an agent with another host's name.
    fn occupy_spare(&mut self, host: usize, disk: Disk) {
        let spare = spare(self.agents.len());
        self.names[spare] = self.names[host].clone();
        let collectors = self.agents[host].collectors.clone();
        let stream = self.agents[host].stream;
        let spare = &mut self.agents[spare];
        (spare.disk, spare.stream, spare.collectors) = (disk, stream, collectors);
        spare.is_placed = true;
        spare.start_at = Some(self.now);
    }

    /// The agent is dead, and a drainer ships its journal, while a supervisor starts it again.
    pub(super) fn drain(&mut self, host: usize) -> Result<bool, Broken> {
        let spare = spare(self.agents.len());
        if self.agents[spare].process.is_some() || !self.agents[host].is_placed {
            return Ok(false);
        }
        self.end_agent(host, true);
        let disk = self.agents[host].disk.clone();
        self.occupy_spare(host, disk);
        self.step_hosts()?;
        here::enter(self.agents[spare].clocks(EPOCH, self.now));
        if let Some(process) = &mut self.agents[spare].process {
            process.stop(self.now);
        }
        Ok(true)
    }

    pub(super) fn end_spare(&mut self) {
        let spare = spare(self.agents.len());
        self.end_agent(spare, false);
        self.agents[spare].disk = Disk::default();
        self.agents[spare].stream = None;
    }

    /// A copy of the ledger runs beside it, and agents change between the two.
    pub(super) fn split_ledger(&mut self, until: u64) -> bool {
        if self.collectors[1].process.is_some() || self.collectors[0].process.is_none() {
            return false;
        }
        self.collectors[1].ledger = self.collectors[0].ledger.copy();
        self.collectors[1].totals = Disk::default();
        self.collectors[1].start_at = Some(self.now);
        self.collectors[1].rules = self.collectors[0].rules;
        self.collectors[1].skew = self.collectors[0].skew;
        self.oracle.restored(1);
        for host in self.agents.iter_mut().filter(|host| host.collectors.contains(&0)) {
            host.collectors = vec![0, 1];
        }
        self.plan.undo_later(until, Undo::Standby);
        true
    }

    pub(super) fn end_standby(&mut self) {
        self.end_collector(1);
        self.collectors[1].start_at = None;
        let other = self.plan.other_ledger;
        for host in &mut self.agents {
            host.collectors = if other { vec![0, 2] } else { vec![0] };
        }
    }

    pub(super) fn restore_ledger(&mut self, by_hand: bool) -> Result<bool, Broken> {
        let host = &mut self.collectors[0];
        here::enter(host.clocks(EPOCH, self.now));
        let Some(backup) = host.backup.take() else {
            if let Some(process) = &host.process {
                let backup = Backup::take(&process.store, process.ledger.now());
                host.backup = Some(backup.map_err(|error| error.to_string())?);
            }
            return Ok(false);
        };
        host.restores += 1;
        let (ledger, totals) = backup.restore(host.restores)?;
        self.end_collector(0);
        let host = &mut self.collectors[0];
        host.ledger = ledger;
        // Somebody who forgets the totals beside it leaves some that are newer.
        if !by_hand {
            host.totals = totals;
        }
        self.oracle.restored(0);
        Ok(true)
    }
}
