//! An archive in an object store: S3 and what speaks as it does, Google Cloud Storage, Azure Blob Storage.
//!
//! **Owns** how blocking callers reach the store's futures. **Does not own** credentials and endpoints: they come from
//! the environment, by the names that the clouds' own tools read (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
//!
//! An object is made by a conditional write, which the store must honour: S3's `If-None-Match: *`, and the like of others.
//!
//! Limits: an operation is tried again for at most [`RETRY_MAX`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::runtime::Runtime;

use super::ArchiveError;
use super::store::{ArchiveStore, Made};

/// Before a failure is told.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A bucket or container, and a prefix in it.
#[derive(Debug, Clone)]
pub struct CloudStore {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: String,
}

impl CloudStore {
    /// The store at `s3://BUCKET/PREFIX`, `gs://..` or `az://..`.
    ///
    /// # Errors
    /// An address or an environment that cannot be used.
    pub fn open(url: &str) -> Result<Self, ArchiveError> {
        // One provider is enough: that of all other TLS here. It may be there already.
        let _installed = rustls::crypto::ring::default_provider().install_default().is_ok();
        let failed = |error: Error| fault("open", url, &error);
        let retry = RetryConfig { retry_timeout: RETRY_MAX, ..RetryConfig::default() };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let store: Arc<dyn ObjectStore> = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
                Arc::new(builder.build().map_err(failed)?)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
                Arc::new(builder.build().map_err(failed)?)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
                Arc::new(builder.build().map_err(failed)?)
            }
            _ => {
                let reason = "it begins with none of s3://, gs://, az://".to_owned();
                return Err(ArchiveError::Store { act: "open", name: url.to_owned(), reason });
            }
        };
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        Ok(Self::on(store, prefix, url))
    }

    fn on(store: Arc<dyn ObjectStore>, prefix: &str, place: &str) -> Self {
        Self { store, prefix: Path::from(prefix), place: place.to_owned() }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

/// What drives the store's connections: never ended, as an archive may be dropped where nothing may block.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("archive").enable_all().build();
        built.expect("the system gives a process its threads")
    })
}

impl ArchiveStore for CloudStore {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<Made, ArchiveError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let (path, payload) = (self.path(name), PutPayload::from(bytes.to_vec()));
        match runtime().block_on(self.store.put_opts(&path, payload, options)) {
            Ok(_) => Ok(Made::Now),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Made::Before),
            Err(error) => Err(fault("write", name, &error)),
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = self.path(name);
        let read = async { self.store.get_opts(&path, GetOptions::default()).await?.bytes().await };
        match runtime().block_on(read) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault("read", name, &error)),
        }
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: u32,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        let (path, end) = (self.path(name), offset.saturating_add(u64::from(length)));
        match runtime().block_on(self.store.get_range(&path, offset..end)) {
            Ok(bytes) => {
                Ok(Some(bytes.to_vec()).filter(|_| bytes.len() as u64 == u64::from(length)))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault("read", name, &error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, ArchiveError> {
        let path = self.path(folder);
        let listed = runtime().block_on(self.store.list_with_delimiter(Some(&path)));
        let listed = listed.map_err(|error| fault("list", folder, &error))?;
        let name = |path: &Path| path.filename().map(|name| format!("{folder}/{name}"));
        Ok(listed.objects.iter().filter_map(|object| name(&object.location)).collect())
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

fn fault(act: &'static str, name: &str, error: &Error) -> ArchiveError {
    ArchiveError::Store { act, name: name.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn an_object_is_made_once() {
        let store = CloudStore::on(Arc::new(InMemory::new()), "a/b", "s3://bucket/a/b");
        assert_eq!(store.list("books"), Ok(Vec::new()));
        assert_eq!(store.put_new("books/1", b"one"), Ok(Made::Now));
        assert_eq!(store.put_new("books/1", b"two"), Ok(Made::Before));
        assert_eq!(store.get("books/1"), Ok(Some(b"one".to_vec())));
        assert_eq!(store.get("books/2"), Ok(None));
        assert_eq!(store.get_range("books/1", 1, 2), Ok(Some(b"ne".to_vec())));
        assert_eq!(store.get_range("books/1", 1, 3), Ok(None));
        assert_eq!(store.get_range("books/2", 0, 1), Ok(None));
        assert_eq!(store.put_new("streams/1", b"one"), Ok(Made::Now));
        assert_eq!(store.list("books"), Ok(vec!["books/1".to_owned()]));
    }

    #[test]
    fn an_address_of_no_store_is_refused() {
        let told = CloudStore::open("ftp://x/y").unwrap_err().to_string();
        assert!(told.contains("s3://"), "{told}");
    }
}
