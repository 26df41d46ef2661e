//! The one public error type: a kind with a stable code, a message, the place, and what to do about it.

use std::fmt;

/// What went wrong, as a class. [`Kind::code`] is stable: programs may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The bytes are not a valid ONNX model.
    InvalidModel,
    /// The model uses operators that are not implemented.
    UnsupportedOp,
    /// An operator does not take a data type, here or on this target.
    UnsupportedType,
    /// Shapes of a model's values contradict each other, or cannot be known at build time.
    InvalidShape,
    /// A symbolic dimension is outside the bounds stated at build time.
    DimOutOfBounds,
    /// An input or an argument is wrong: name, data type, shape, length or value.
    InvalidInput,
    /// A package, plan or manifest does not parse.
    InvalidPackage,
    /// A package, plan or manifest is of a format version that this build does not read.
    FormatVersion,
    /// Bytes do not match their digest.
    Integrity,
    /// The network or the server failed.
    Network,
    /// Something took longer than it may.
    Timeout,
    /// The caller asked to stop.
    Aborted,
    /// There is no such device here.
    DeviceUnavailable,
    /// The device's limits are too small for the model.
    DeviceLimit,
    /// The device was lost and could not be recovered.
    DeviceLost,
    /// The device computes something else than the golden outputs.
    GoldenMismatch,
    /// A storage quota is too small.
    QuotaExceeded,
    /// The model was disposed.
    Disposed,
    /// Integer arithmetic left the range that the device can represent.
    Overflow,
    /// A file could not be read or written.
    Io,
    /// There is no such model, version, file or tensor.
    NotFound,
    /// It exists already and may not be changed.
    Conflict,
    /// A defect in Nearside.
    Internal,
}

impl Kind {
    /// The stable name of this kind.
    pub const fn code(self) -> &'static str {
        match self {
            Kind::InvalidModel => "invalid-model",
            Kind::UnsupportedOp => "unsupported-op",
            Kind::UnsupportedType => "unsupported-type",
            Kind::InvalidShape => "invalid-shape",
            Kind::DimOutOfBounds => "dim-out-of-bounds",
            Kind::InvalidInput => "invalid-input",
            Kind::InvalidPackage => "invalid-package",
            Kind::FormatVersion => "format-version",
            Kind::Integrity => "integrity",
            Kind::Network => "network",
            Kind::Timeout => "timeout",
            Kind::Aborted => "aborted",
            Kind::DeviceUnavailable => "device-unavailable",
            Kind::DeviceLimit => "device-limit",
            Kind::DeviceLost => "device-lost",
            Kind::GoldenMismatch => "golden-mismatch",
            Kind::QuotaExceeded => "quota-exceeded",
            Kind::Disposed => "disposed",
            Kind::Overflow => "overflow",
            Kind::Io => "io",
            Kind::NotFound => "not-found",
            Kind::Conflict => "conflict",
            Kind::Internal => "internal",
        }
    }
}

/// An error: what (kind and message), where (place) and what to do (help).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    message: String,
    place: Option<String>,
    help: Option<String>,
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`, saying what is wrong.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), place: None, help: None }))
    }

    /// Says where: a node's path, a file and offset, a URL. The innermost place stands; outer ones go before it.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.place = Some(match self.0.place {
            Some(inner) => format!("{place}: {inner}"),
            None => place.to_string(),
        });
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// The class of this error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What is wrong, without place and help.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it is wrong.
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// What to do about it.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} [{}]", self.0.message, self.0.kind.code())?;
        if let Some(help) = &self.0.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_place_message_code_and_help() {
        let e = Error::new(Kind::InvalidInput, "no input \"x\"").at("run").at("model").help("name one of: a, b");
        assert_eq!(e.to_string(), "model: run: no input \"x\" [invalid-input]\n  help: name one of: a, b");
    }
}
