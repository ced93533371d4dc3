//! The walk through the structure of an image, one step after the other.

use crate::image::{Image, SniffError};

/// The most bytes that a walker takes in one piece: a JPEG frame header of four components.
pub(crate) const LONGEST_TAKE: usize = 18;

/// The next step that a walker asks for. The driver, [`Sniffer`](crate::Sniffer), hides the borders between chunks
/// everywhere but in [`Walk::read`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// So many bytes in one piece, at least 1 and at most [`LONGEST_TAKE`].
    Take(usize),
    /// So many bytes are passed over unread; then `take` is called with none.
    Skip(u64),
    /// The bytes as they come, through [`Walk::read`].
    Read,
    /// The image has ended; what follows is not part of it.
    End(Image),
}

/// The structure of one format behind its signature: a state machine that takes bytes and answers with the step that it
/// needs next.
pub(crate) trait Walk {
    /// Gets the bytes that a [`Step::Take`] asked for, or nothing after a [`Step::Skip`]. Another number of bytes
    /// cannot come; walkers call it malformed, because that is safer than a panic.
    fn take(&mut self, bytes: &[u8]) -> Result<Step, SniffError>;

    /// Gets all bytes at hand, at least one, after a [`Step::Read`], and returns how many of them it has handled. A
    /// format without such a step does not need this.
    fn read(&mut self, piece: &[u8]) -> Result<(usize, Step), SniffError> {
        Ok((piece.len(), Step::Read))
    }

    /// The format and the size, once they are known.
    fn header(&self) -> Option<Image>;

    /// Whether a whole picture is there, so that there is something to show whatever follows.
    fn has_picture(&self) -> bool;

    /// How it is turned and mirrored, as Exif numbers it. Browsers do so for PNG and JPEG only.
    fn orientation(&self) -> u8 {
        1
    }
}
