//! The bytes of a picture for a decoder, and the time that it may take.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::target::Reason;

/// How often the time of decoding is checked: after so many bytes.
const BYTES_A_LOOK: usize = 16 << 10;

/// The processor time that this thread may still take. It does not depend on how busy the machine is, so a picture is
/// either always decoded or never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    limit: Duration,
    end: Duration,
}

impl Clock {
    pub(crate) fn start(limit: Duration) -> Self {
        Self { limit, end: Self::now() + limit }
    }

    fn now() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
    }

    pub(crate) fn look(self) -> Result<(), Reason> {
        if Self::now() > self.end { Err(Reason::Time(self.limit)) } else { Ok(()) }
    }
}

/// The bytes of a picture for a decoder. Reading fails once decoding has taken too long, because a decoder can be
/// interrupted only where it reads.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    next_look: usize,
    clock: Clock,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8], clock: Clock) -> Self {
        Self { bytes, at: 0, next_look: 0, clock }
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.next_look {
            self.clock.look().map_err(io::Error::other)?;
            self.next_look = self.at + BYTES_A_LOOK;
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        Ok(&rest[..rest.len().min(BYTES_A_LOOK)])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let count = here.len().min(into.len());
        into[..count].copy_from_slice(&here[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Seek for Input<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let from = |start: usize, by: i64| i64::try_from(start).ok()?.checked_add(by)?.try_into().ok();
        let at = match to {
            SeekFrom::Start(at) => usize::try_from(at).ok(),
            SeekFrom::Current(by) => from(self.at, by),
            SeekFrom::End(by) => from(self.bytes.len(), by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at as u64)
    }
}

impl Reason {
    /// The reason for which [`Input`] failed.
    pub(crate) fn io(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(reason) => reason,
            Err(error) => Self::Decoder(error.to_string()),
        }
    }
}
