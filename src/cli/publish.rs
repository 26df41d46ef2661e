//! `nearside publish DIR --store URL`.

use std::path::PathBuf;

use super::{Output, runtime};
use crate::error::Result;
use crate::store::publish::{Progress, Stage, publish};
use crate::store::{Missing, Store};

/// The arguments of `nearside publish`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The package folder that `nearside build` wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to publish: a folder or file:///folder
    #[arg(long, value_name = "URL")]
    store: String,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let store = Store::open(&args.store, Missing::Create)?;
    let (verify, upload) = (output.bytes("verifying", 0), output.bytes("uploading", 0));
    let bars = (verify.clone(), upload.clone());
    let progress = move |p: Progress| {
        let bar = if p.stage == Stage::Verify { &bars.0 } else { &bars.1 };
        bar.set_length(p.total);
        bar.set_position(p.done);
    };
    let published = runtime()?.block_on(publish(&store, &args.folder, progress));
    verify.finish_and_clear();
    upload.finish_and_clear();
    let published = published?;
    let done = if published.created { "Published" } else { "Already published:" };
    let text = format!(
        "{done} {}@{} in {store}\n  manifest {}\n  {} blobs uploaded ({} bytes), {} were there",
        published.name,
        published.version,
        published.manifest,
        published.blobs_uploaded,
        published.bytes_uploaded,
        published.blobs_present,
    );
    output.result(&published, text)
}
