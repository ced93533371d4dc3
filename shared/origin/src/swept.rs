//! The result of a sweep.

use std::time::Duration;

/// The result of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files of images before it.
    pub files: u64,
    /// Files that no row names, old enough to be taken away.
    pub unnamed: u64,
    /// How old the oldest of them is.
    pub oldest: Duration,
    /// The files of these that were moved to the trash, or removed if there is none.
    pub moved: u64,
    /// Variants without original and unfinished uploads that were removed.
    pub leftovers: u64,
    /// Files that came back from the trash because a row names them.
    pub put_back: u64,
    /// Rows whose file is missing, before the sweep put any back.
    pub missing: u64,
    /// Files that were removed from the trash.
    pub purged: u64,
    /// How long the oldest of those had been in the trash.
    pub oldest_purged: Duration,
    /// Whether nothing was taken away, because it would have been too much at once.
    pub held: bool,
}

impl Swept {
    pub(crate) fn log(&self, max_percent: u64) {
        let unreadable = self.unreadable();
        if unreadable > 0 {
            tracing::warn!(
                unreadable,
                "files of images are missing in the image store: these images can't be read"
            );
        }
        let (oldest_s, oldest_purged_s) = (self.oldest.as_secs(), self.oldest_purged.as_secs());
        let Self { files, unnamed, moved, leftovers, put_back, purged, .. } = *self;
        if self.held {
            tracing::warn!(
                files,
                unnamed,
                oldest_s,
                put_back,
                "the sweep removed nothing: {}",
                self.too_much(max_percent)
            );
            return;
        }
        tracing::info!(
            files,
            moved,
            oldest_s,
            leftovers,
            put_back,
            purged,
            oldest_purged_s,
            "the sweep has ended: files that no row names are in the trash, and old ones are removed from it"
        );
    }

    /// How many images can't be read, since their files are neither in place nor in the trash.
    pub fn unreadable(&self) -> u64 {
        self.missing.saturating_sub(self.put_back)
    }

    /// Why nothing was taken away, and what to do.
    pub fn too_much(&self, max_percent: u64) -> String {
        format!(
            "no row names {} of {} files, as after the restore of an old database, and a sweep removes at most \
             {max_percent} % at once. To remove them, start one gateway with SWEEP_MAX_PERCENT=100",
            self.unnamed, self.files
        )
    }
}
