//! A store that fails on demand, over a store that works.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use nearside::store::Store;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The n-th write, counted from 0, and all after it fail and write nothing.
    WriteFails(usize),
    /// The n-th write is done, but the answer is lost; all after it fail. So it looks when the process dies.
    WriteIsDoneThenDead(usize),
    /// Nothing; each write takes a while.
    SlowWrites(Duration),
    /// Every read fails.
    ReadFails,
    /// Every read waits this long.
    ReadStalls(Duration),
    /// The body of every read breaks after its first half.
    BodyBreaks,
    /// The body of every read stops after its first half and never ends.
    BodyStalls,
    /// The body of every read comes in pieces, one each of this time.
    SlowBody(Duration),
}

/// A store with a fault.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    writes: Arc<AtomicUsize>,
}

impl Faulty {
    pub(crate) fn new(store: &Store, fault: Fault) -> Faulty {
        Faulty { inner: Arc::clone(store.inner()), fault, writes: Arc::default() }
    }

    /// Counts the writes that are tried.
    pub(crate) fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.writes)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {}", self.fault, self.inner)
    }
}

fn failure() -> Error {
    Error::Generic { store: "faulty", source: "the disk is on fire at /var/secret".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let count = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::WriteFails(n) if count >= n => return Err(failure()),
            Fault::WriteIsDoneThenDead(n) if count > n => return Err(failure()),
            Fault::SlowWrites(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if self.fault == Fault::WriteIsDoneThenDead(count) { Err(failure()) } else { result }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failure())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault {
            Fault::ReadFails => return Err(failure()),
            Fault::ReadStalls(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        let head = options.head;
        let mut result = self.inner.get_opts(location, options).await?;
        let end: Option<BoxStream<'static, Result<bytes::Bytes>>> = match self.fault {
            Fault::BodyBreaks => Some(futures_util::stream::once(async { Err(failure()) }).boxed()),
            Fault::BodyStalls => Some(futures_util::stream::pending().boxed()),
            _ => None,
        };
        let pause = if let Fault::SlowBody(time) = self.fault { time } else { Duration::ZERO };
        if (end.is_some() || !pause.is_zero()) && !head {
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            let bytes = result.bytes().await?;
            let length = if end.is_some() { bytes.len() / 2 } else { bytes.len() };
            let pieces: Vec<_> = bytes[..length].chunks(1 << 15).map(bytes::Bytes::copy_from_slice).collect();
            let pieces = futures_util::stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok(piece)
            });
            let payload = GetResultPayload::Stream(match end {
                Some(end) => pieces.chain(end).boxed(),
                None => pieces.boxed(),
            });
            result = GetResult { payload, meta, range, attributes, extensions };
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.fault == Fault::ReadFails {
            return futures_util::stream::once(async { Err(failure()) }).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
