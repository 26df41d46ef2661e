//! `nearside check DIR`: the golden outputs on each device.

use super::{Output, model};
use crate::error::{Error, Kind, Result};
use crate::package::Package;
use crate::runtime::native::DeviceName;
use serde::Serialize;
use std::path::PathBuf;

/// The arguments of `nearside check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A package folder
    #[arg(value_name = "DIR")]
    package: PathBuf,
    /// The devices to check [default: every one that is here]
    #[arg(long, value_enum)]
    device: Vec<DeviceName>,
}

#[derive(Serialize)]
struct Row {
    device: String,
    passed: bool,
    reason: Option<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let package = Package::open(&args.package)?;
    let Some(golden) = &package.golden else {
        return Err(Error::new(Kind::InvalidPackage, "the package has no golden outputs").at(args.package.display()));
    };
    let named = !args.device.is_empty();
    let devices = if named { args.device.clone() } else { vec![DeviceName::Cpu, DeviceName::Gpu] };
    let mut rows = vec![];
    let mut failed = None;
    for name in devices {
        let mut device = match model::open_device(name, &package, 1) {
            Ok(d) => d,
            Err(e) if !named && e.kind() == Kind::DeviceUnavailable => {
                rows.push(Row { device: name.to_string(), passed: false, reason: Some(format!("not here: {e}")) });
                continue;
            }
            Err(e) => return Err(e),
        };
        let result = golden.cases.iter().try_for_each(|case| {
            let (got, _) = device.run_timed(&package.plan, &case.inputs)?;
            golden.compare(&package.plan, case, &got)
        });
        rows.push(Row {
            device: device.describe(),
            passed: result.is_ok(),
            reason: result.as_ref().err().map(ToString::to_string),
        });
        failed = failed.or(result.err());
    }
    let text: String = rows
        .iter()
        .map(|r| {
            let mark = if r.passed { "ok    " } else { "FAILED" };
            format!("{mark}  {}{}\n", r.device, r.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default())
        })
        .collect();
    output.result(&rows, text)?;
    failed.map_or(Ok(()), Err)
}
