//! Ctrl-C and SIGTERM, for the programs of this crate that clean up after themselves.

use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Result;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::wait;

/// Ctrl-C and SIGTERM end this program by the way of errors, so that it ends the two programs and
/// removes their folder. The receiver hears of it.
///
/// # Errors
/// When signals cannot be watched.
pub fn watch() -> Result<Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        wait::interrupt();
        // Nobody may be listening; the waits have ended by now.
        let _unheard = sender.send(());
    });
    Ok(receiver)
}
