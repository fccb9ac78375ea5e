//! Requests in, answers out, over a real socket on a free port.

use std::sync::Mutex;
use std::time::Duration;

use axum::extract::ConnectInfo;
use tidemark_common::id::{OpeningId, StreamId};
use tidemark_common::local_url::local_url;
use tidemark_common::time::Timestamp;
use tokio::sync::oneshot;

use super::*;
use crate::fsck::Fsck;
use crate::inspect::Inspection;
use crate::journal::{FreshIds, JOURNAL_BYTES_MIN, Journal, JournalOptions};
use crate::status::tests::well;

/// A source that answers what it was told to.
struct Told {
    health: Verdict,
    readiness: Verdict,
    /// The last call for dead letters.
    asked: Mutex<Option<(u64, usize)>>,
}

impl Observe for Told {
    fn status(&self) -> Status {
        well()
    }

    fn health(&self) -> Verdict {
        self.health.clone()
    }

    fn readiness(&self) -> Verdict {
        self.readiness.clone()
    }

    fn dead_letters(&self, from: u64, limit: usize) -> Result<Vec<DeadLetterShown>, String> {
        *self.asked.lock().unwrap() = Some((from, limit));
        if from == 99 {
            return Err("a page is gone".to_owned());
        }
        let letter = |number| DeadLetterShown {
            number,
            time: "2026-01-02T03:04:05Z".to_owned(),
            door: "udp".to_owned(),
            reason: "sampled".to_owned(),
            remedy: "send every event".to_owned(),
            text: Some("a:1|c|@0.1".to_owned()),
            hex: None,
        };
        Ok((from..3).take(limit).map(letter).collect())
    }

    fn prepare_stop(&self) -> u64 {
        100
    }

    fn journal(&self) -> JournalSeen {
        let folder = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            path: folder.path().join("journal.redb"),
            bytes_max: JOURNAL_BYTES_MIN,
            retain_acked_millis: 0,
            retain_acked_bytes_max: 0,
            raw_events_bytes_max: 0,
            ids_max: 10,
            ids_window_millis: 0,
            dead_letters_max: 10,
            dead_letter_bytes_max: 1_000,
        };
        let fresh = FreshIds { stream: StreamId([1; 16]), opening: OpeningId([2; 16]) };
        let opened = Journal::open(options, fresh, Timestamp(0), Duration::ZERO);
        let (journal, _) = opened.unwrap();
        JournalSeen { reader: journal.reader(), file_bytes: 7, bytes_max: Some(JOURNAL_BYTES_MIN) }
    }

    fn replay(&self, asked: ReplayAsked) -> Later<Result<ReplayAnswer, ReplayError>> {
        let answer = match asked {
            ReplayAsked::AsIs(all) => {
                Ok(ReplayAnswer { replayed: vec![all.from], ..ReplayAnswer::default() })
            }
            ReplayAsked::Corrected(_) => Err(ReplayError::Full),
        };
        Box::pin(async move { answer })
    }
}

async fn ask(source: &Arc<Told>, path: &str) -> (u16, String) {
    ask_by(None, source, path).await
}

/// Asks as `host` is asked, unless it is the address itself.
async fn ask_by(host: Option<&str>, source: &Arc<Told>, path: &str) -> (u16, String) {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let source: Arc<dyn Observe> = source.clone();
    let served = tokio::spawn(admin.serve(source, async { drop(stopped.await) }));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let host = host.map_or(address.to_string(), str::to_owned);
    let asked = client.get(format!("http://{address}{path}")).header(header::HOST, host);
    let answer = asked.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    drop((stop, client));
    served.await.unwrap().unwrap();
    (status, text)
}

fn told() -> Arc<Told> {
    Arc::new(Told { health: Verdict::Yes, readiness: Verdict::Yes, asked: Mutex::new(None) })
}

#[tokio::test]
async fn answers() {
    let source = told();
    assert_eq!(ask(&source, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(ask(&source, "/readyz").await, (200, "ok\n".to_owned()));
    let (status, text) = ask(&source, "/metrics").await;
    assert_eq!((status, text), (200, metrics::encode(&well())));
    let (status, text) = ask(&source, "/status").await;
    assert_eq!((status, serde_json::from_str(&text).unwrap()), (200, well()));
    let (status, text) = ask(&source, "/nothing").await;
    assert!(status == 404 && text.contains("/metrics"), "{text}");
}

#[tokio::test]
async fn what_holds_usage_or_changes_it_is_for_this_machine_only() {
    let source = told();
    for path in ["/metrics", "/healthz", "/readyz", "/status"] {
        assert_eq!(ask_by(Some("node.example:8128"), &source, path).await.0, 200, "{path}");
    }
    for path in [
        "/dead-letters",
        "/dead-letters/replay",
        "/prepare-stop",
        "/inspect",
        "/fsck",
        "/batches/1",
    ] {
        let (status, text) = ask_by(Some("node.example:8128"), &source, path).await;
        assert!(status == 403 && text.contains("own machine"), "{path}: {status} {text}");
    }
    assert_eq!(*source.asked.lock().unwrap(), None, "nothing was read");
}

#[tokio::test]
async fn the_journal_is_looked_at() {
    let source = told();
    let (status, text) = ask(&source, "/inspect").await;
    let inspection: Inspection = serde_json::from_str(&text).unwrap();
    assert_eq!((status, inspection.stream), (200, Some("01".repeat(16))));
    assert_eq!((inspection.room.file_bytes, inspection.damages), (7, 0));
    let (status, text) = ask(&source, "/fsck").await;
    assert!(status == 200 && serde_json::from_str::<Fsck>(&text).unwrap().sound, "{text}");
    let (status, text) = ask(&source, "/batches/1").await;
    assert!(status == 404 && text.contains("not held"), "{text}");
}

#[tokio::test]
async fn what_fails_says_why() {
    let source = Arc::new(Told {
        health: Verdict::No("commits have ended".to_owned()),
        readiness: Verdict::No("stopping".to_owned()),
        asked: Mutex::new(None),
    });
    assert_eq!(ask(&source, "/healthz").await, (503, "commits have ended\n".to_owned()));
    assert_eq!(ask(&source, "/readyz").await, (503, "stopping\n".to_owned()));
    let (status, text) = ask(&source, "/dead-letters?from=99").await;
    assert!(status == 500 && text.contains("a page is gone"), "{text}");
    let (status, text) = ask(&source, "/dead-letters?form=1").await;
    assert!(status == 400 && text.contains("form"), "{text}");
}

#[tokio::test]
async fn dead_letters_come_in_pages() {
    /// The query, what the source is asked for, the numbers answered and where to go on.
    async fn check(query: &str, asked: (u64, usize), numbers: &[u64], next: Option<u64>) {
        let source = told();
        let (status, text) = ask(&source, &format!("/dead-letters{query}")).await;
        assert_eq!(status, 200, "{text}");
        let page: DeadLetterPage = serde_json::from_str(&text).unwrap();
        let shown: Vec<_> = page.dead_letters.iter().map(|letter| letter.number).collect();
        assert_eq!((shown.as_slice(), page.next), (numbers, next), "{query}");
        assert_eq!(*source.asked.lock().unwrap(), Some(asked), "{query}");
    }
    check("", (0, 100), &[0, 1, 2], None).await;
    check("?from=1&limit=1", (1, 1), &[1], Some(2)).await;
    check("?from=3", (3, 100), &[], None).await;
    check("?limit=0", (0, 1), &[0], Some(1)).await;
    check("?limit=5000", (0, 1_000), &[0, 1, 2], None).await;
}

/// Half a head, nothing at all, and one connection more than allowed; and a long answer is waited for.
#[tokio::test(start_paused = true)]
async fn nobody_holds_the_address() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, counts) = (admin.address().unwrap(), admin.counts());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(admin.serve(told(), async { drop(stopped.await) }));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /sta").await.unwrap();
        held.push(connection);
    }
    let mut refused = TcpStream::connect(address).await.unwrap();
    assert!(refused.read(&mut [0; 1]).await.map_or(true, |read| read == 0));
    assert_eq!(counts.connections_refused.value(), 1);
    for mut connection in held {
        assert!(connection.read_to_end(&mut Vec::new()).await.is_ok());
    }
    assert_eq!(counts.connections_timed_out.value(), 32);
    drop(stop);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_client_reads_what_the_server_says() {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = local_url(admin.address().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(admin.serve(told(), async { drop(stopped.await) }));
    let client = client::AdminClient::new(&url).unwrap();
    assert_eq!(client.status().await.unwrap(), well());
    let (letters, next) = client.dead_letters(1).await.unwrap();
    assert_eq!((letters.len(), next), (2, None));
    let error = client.dead_letters(99).await.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("a page is gone"), "{error}");
    drop((stop, client));
    served.await.unwrap().unwrap();
}

/// Whether an answer that takes ten times as long as a connection may be silent arrives.
async fn arrives(patient: bool) -> bool {
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = admin.address().unwrap();
    let router = Router::new().route(
        "/",
        get(async move |ConnectInfo(peer): ConnectInfo<Peer>| {
            if patient {
                peer.patience.begin();
            }
            tokio::time::sleep(IDLE_MAX.saturating_mul(10)).await;
        }),
    );
    let service = router.into_make_service_with_connect_info::<Peer>();
    let serving = tokio::spawn(axum::serve(admin.listener, service).into_future());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{address}/")).send().await;
    serving.abort();
    answer.is_ok()
}

#[tokio::test(start_paused = true)]
async fn only_a_long_look_is_waited_for() {
    assert!(arrives(true).await);
    assert!(!arrives(false).await);
}
