//! A model's version: Semantic Versioning 2.0.0 without build metadata, and its order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};

/// The longest version in bytes.
const MAX_LEN: usize = 64;

/// A version `MAJOR.MINOR.PATCH` or `MAJOR.MINOR.PATCH-PRE`.
///
/// Build metadata (`+…`) is refused: two versions that differ only there have the same precedence, and then
/// "the newest version" would have no answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    text: String,
    numbers: [u64; 3],
}

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a pre-release (`1.0.0-rc.1`).
    pub fn is_prerelease(&self) -> bool {
        self.text.contains('-')
    }

    fn prerelease(&self) -> Option<&str> {
        self.text.split_once('-').map(|(_, pre)| pre)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn is_identifier(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && (!digits || number(text).is_some())
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::InvalidInput, format!("{text:?} is not a version"))
                .help("write MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-PRERELEASE, as in 1.0.0 or 1.0.0-rc.1")
        };
        if text.len() > MAX_LEN {
            return Err(Error::new(Kind::InvalidInput, format!("a version has at most {MAX_LEN} characters")));
        }
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut parts = core.split('.').map(number);
        let mut next = || parts.next().flatten().ok_or_else(wrong);
        let numbers = [next()?, next()?, next()?];
        if parts.next().is_some() || !pre.is_none_or(|pre| pre.split('.').all(is_identifier)) {
            return Err(wrong());
        }
        Ok(Version { text: text.to_owned(), numbers })
    }
}

/// Clause 11.4 of Semantic Versioning: identifiers left to right; numbers by value and before words, words in ASCII order.
fn compare_prerelease(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (x, y) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => (x, y),
        };
        let order = match (number(x), number(y)) {
            (Some(x), Some(y)) => x.cmp(&y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.prerelease(), other.prerelease()) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => compare_prerelease(a, b),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_semantic_versioning_says() {
        let ordered = [
            "0.9.10",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.2",
            "1.0.10",
            "1.2.0",
            "10.0.0",
        ];
        let versions: Vec<Version> = ordered.iter().map(|v| v.parse().unwrap()).collect();
        for (i, a) in versions.iter().enumerate() {
            for (j, b) in versions.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_version() {
        for text in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.0-",
            "1.0.0-a..b",
            "1.0.0-01",
            "1.0.0+build",
            "v1.0.0",
            "1.0.0 ",
            "-1.0.0",
            "1.0.x",
            "../1.0.0",
            "1.0.0-a/b",
            "1.0.0-é",
            "99999999999999999999.0.0",
            ".",
            "..",
        ] {
            assert_eq!(text.parse::<Version>().unwrap_err().kind(), Kind::InvalidInput, "{text:?}");
        }
        let long = format!("1.0.0-{}", "a".repeat(MAX_LEN));
        assert_eq!(long.parse::<Version>().unwrap_err().kind(), Kind::InvalidInput);
    }
}
