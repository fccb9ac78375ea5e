//! What the program's supervisor is told, where it listens: ready, stopping, still at work (`sd_notify`, of systemd).
//!
//! **Owns** the words of that protocol. **Does not own** when they are true. Without `NOTIFY_SOCKET` in the environment
//! nothing is said; a supervisor that does not listen any more is no error of the program.

use std::time::Duration;

use sd_notify::NotifyState;

/// The program takes what it is there for. `status` is shown to people.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The program was asked to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The program is still at work.
pub fn at_work() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say [`at_work`]: twice as often as the supervisor asks for. `None`: it does not ask.
#[must_use]
pub fn at_work_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().and_then(|longest| longest.checked_div(2))
}

fn tell(states: &[NotifyState<'_>]) {
    let _heard = sd_notify::notify(states).is_ok();
}
