//! What runs beside the events' way: watching, the admin address, certificates, the supervisor.
//!
//! **Owns** these tasks, which end with the agent. **Does not own** what they show or read.

use std::sync::Arc;

use tidemark_common::supervisor;
use tidemark_common::tls::{self, Pem};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::read_pem;
use crate::admin::observed::{Observer, Parts};
use crate::admin::{Admin, Observe as _, Verdict};
use crate::config::Config;
use crate::driver::DriverConfigError;

/// Begins all of them.
pub(super) fn begin(
    parts: Parts,
    admin: Admin,
    config: Config,
    pem: watch::Sender<Arc<Pem>>,
) -> Vec<Beside> {
    let observer = Arc::new(Observer::new(parts));
    let watching = Arc::clone(&observer);
    let seen = Arc::clone(&observer);
    vec![
        Beside(tokio::spawn(async move { watching.watch().await })),
        Beside(tokio::spawn(say_at_work(seen))),
        Beside(tokio::spawn(serve_admin(admin, observer))),
        Beside(tokio::spawn(renew_pem(config, pem))),
    ]
}

/// Tells the supervisor, as often as it asks for it, as long as it is true.
async fn say_at_work(seen: Arc<Observer>) {
    let Some(every) = supervisor::at_work_every() else { return };
    loop {
        if seen.health() == Verdict::Yes {
            supervisor::at_work();
        }
        sleep(every).await;
    }
}

async fn serve_admin(admin: Admin, observer: Arc<Observer>) {
    if let Err(error) = admin.serve(observer, std::future::pending()).await {
        tracing::error!(%error, "the admin address no longer answers");
    }
}

/// Reads the certificates again now and then; the uplink takes the newest at its next connection.
async fn renew_pem(config: Config, current: watch::Sender<Arc<Pem>>) {
    loop {
        sleep(config.uplink.renew_interval).await;
        let read = read_pem(&config).and_then(|pem| {
            // Files that are just being replaced may not fit together.
            tls::client_config(&pem).map_err(DriverConfigError::from)?;
            Ok(pem)
        });
        match read {
            Ok(pem) => {
                current.send_if_modified(|held| {
                    let changed = **held != pem;
                    if changed {
                        tracing::info!("certificates were read again; the next session shows them");
                        *held = Arc::new(pem);
                    }
                    changed
                });
            }
            Err(error) => {
                tracing::warn!(%error, "certificates could not be read again; the former ones are used")
            }
        }
    }
}

/// A task that ends with its owner.
pub(super) struct Beside(JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}
