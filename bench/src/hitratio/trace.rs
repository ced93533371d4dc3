//! Traces: sequences of requests for keys.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use anyhow::Context as _;
use memcache::ENTRY_OVERHEAD_BYTES;
use wire::{Key, KeyError};

/// The largest image of a trace, in bytes.
pub(super) const LARGEST_IMAGE: u64 = 1 << 30;

/// Requests in their order.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    /// Its name.
    pub(super) name: String,
    /// A description of it, as the beginning of a sentence.
    pub(super) about: String,
    /// The keys that requests name by their place.
    pub(super) keys: Vec<Key>,
    pub(super) requests: Vec<Request>,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// The place of its key.
    pub(super) key: u32,
    /// The size of the image, in bytes. When it differs from before, the image was replaced.
    pub(super) bytes: u64,
}

/// Why some text is not a trace.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct TraceError {
    line: usize,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("a request is a key, a blank and a size in bytes, as in `cats/tom.jpg 53210`")]
    NoSize,
    #[error("\"{0}\" is not a size: a whole number of bytes up to {LARGEST_IMAGE}")]
    Size(String),
    #[error(transparent)]
    Key(KeyError),
    #[error("there are more than {} different keys", u32::MAX)]
    TooManyKeys,
}

impl Trace {
    /// Reads a trace file.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let shown = || file.display().to_string();
        let text = std::io::BufReader::new(std::fs::File::open(file).with_context(shown)?);
        let (keys, requests) = parse(text).with_context(shown)?;
        anyhow::ensure!(!requests.is_empty(), "{}: there is no request in it", shown());
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, about: "A trace file".to_owned(), keys, requests })
    }

    /// The weight of a request's image in the store, in bytes.
    pub(super) fn weight(&self, request: Request) -> u64 {
        self.keys[request.key as usize].as_str().len() as u64 + request.bytes + ENTRY_OVERHEAD_BYTES
    }

    /// The weight of all images together, each in its last size, in bytes.
    pub(super) fn footprint(&self) -> u64 {
        let mut weights = vec![0; self.keys.len()];
        for request in &self.requests {
            weights[request.key as usize] = self.weight(*request);
        }
        weights.iter().sum()
    }
}

fn parse(text: impl BufRead) -> Result<(Vec<Key>, Vec<Request>), TraceError> {
    let mut places: HashMap<Key, u32> = HashMap::new();
    let (mut keys, mut requests) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let fail = |problem| TraceError { line: number + 1, problem };
        let line = line.map_err(|error| fail(Problem::Unreadable(error)))?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, size) = line.rsplit_once([' ', '\t']).ok_or_else(|| fail(Problem::NoSize))?;
        let bytes = size.parse().ok().filter(|bytes| *bytes <= LARGEST_IMAGE);
        let bytes = bytes.ok_or_else(|| fail(Problem::Size(size.to_owned())))?;
        let key = Key::new(key.trim_end()).map_err(|error| fail(Problem::Key(error)))?;
        let place = match places.get(&key) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(keys.len()).map_err(|_| fail(Problem::TooManyKeys))?;
                keys.push(key.clone());
                places.insert(key, place);
                place
            }
        };
        requests.push(Request { key: place, bytes });
    }
    Ok((keys, requests))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_line_is_a_key_and_a_size() {
        let text = "# a comment\n\n  a 10\r\nb and c.png \t 20\na 10\na 11\n";
        let (keys, requests) = parse(text.as_bytes()).unwrap();
        assert_eq!(keys.iter().map(Key::as_str).collect::<Vec<_>>(), ["a", "b and c.png"]);
        let told: Vec<(u32, u64)> = requests.iter().map(|request| (request.key, request.bytes)).collect();
        assert_eq!(told, [(0, 10), (1, 20), (0, 10), (0, 11)]);
    }

    #[test]
    fn an_error_names_the_line_and_what_is_wrong() {
        let long = format!("{} 1", "k".repeat(256));
        for (bad, said) in [
            ("only-a-key", "a key, a blank and a size"),
            ("a ten", "\"ten\" is not a size"),
            ("a -1", "\"-1\" is not a size"),
            ("a 1073741825", "\"1073741825\" is not a size"),
            (".. 5", "the key must be one that a URL can name"),
            (long.as_str(), "got 256 bytes"),
        ] {
            let error = parse(format!("a 1\n# x\n{bad}\nb 2").as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("line 3: ") && error.contains(said), "{error}");
        }
        let error = parse(&b"a 1\n\xff 2\n"[..]).unwrap_err().to_string();
        assert!(error.starts_with("line 2: it cannot be read"), "{error}");
    }

    #[test]
    fn a_file_without_a_request_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nothing.trace");
        std::fs::write(&file, "# nothing\n").unwrap();
        let error = Trace::read(&file).unwrap_err().to_string();
        assert!(error.contains("nothing.trace") && error.contains("no request"), "{error}");
        std::fs::write(&file, "a 1\nb").unwrap();
        assert!(format!("{:#}", Trace::read(&file).unwrap_err()).contains("nothing.trace: line 2"));
    }
}
