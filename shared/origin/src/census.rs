//! The files in the store, compared with the rows. The sweep uses the comparison, and so does an installation that has
//! no id yet. So does `gateway adopt`, before it joins a store and a database.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::blobs::{Blobs, Listed, Place};
use crate::error::Error;
use crate::images::Images;
use crate::names::{SHELVES, is_outdated, original_of};

/// How many names of each kind are remembered at most; the next sweep goes on with the rest.
const MOST_NAMES: usize = 100_000;
/// How many files one statement asks the rows about.
pub(crate) const BATCH: usize = 500;

/// The counts, and the files that the sweep moves or removes.
#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Files of images, their variants and unfinished uploads not among them.
    pub files: u64,
    /// Rows.
    pub rows: u64,
    /// Files of images that no row names.
    pub files_without_row: u64,
    /// Rows whose file is not there, nor in the trash.
    pub rows_without_file: u64,
    /// Files in the trash.
    pub trashed: u64,
    /// The files that no row names.
    pub unnamed: Vec<Listed>,
    /// Variants without their original or made in another way, and unfinished uploads.
    pub leftovers: Vec<Listed>,
    /// Files in the trash that a row names.
    pub wanted: Vec<String>,
    /// Files in the trash that no row names.
    pub discarded: Vec<Listed>,
}

/// Goes through all files and all rows.
///
/// The files are listed first, and the rows are read afterwards. A file that was complete long before and that no row
/// names then will never be named, because names are never used twice.
pub(crate) async fn take(images: &Images, blobs: &Blobs) -> Result<Census, Error> {
    let mut census = Census::default();
    for shelf in SHELVES {
        let listed = blobs.list(Place::Images, shelf).await?;
        let trashed = blobs.list(Place::Trash, shelf).await?;
        let named: HashSet<String> = images.named_on(shelf).await?.into_iter().collect();
        let mut absent = named.clone();
        for file in listed.iter().chain(&trashed) {
            absent.remove(&file.location);
        }
        census.add(listed, trashed, &named);
        if !absent.is_empty() {
            census.rows_without_file += still_absent(images, blobs, shelf, absent).await?;
        }
    }
    Ok(census)
}

/// How many rows of a shelf name a file that is not there. The files are listed once more, so that images stored or
/// replaced since the first listing are not counted.
async fn still_absent(
    images: &Images,
    blobs: &Blobs,
    shelf: u8,
    mut absent: HashSet<String>,
) -> Result<u64, Error> {
    for place in [Place::Images, Place::Trash] {
        for file in blobs.list(place, shelf).await? {
            absent.remove(&file.location);
        }
    }
    let absent: Vec<String> = absent.into_iter().collect();
    let mut count = 0;
    for batch in absent.chunks(BATCH) {
        count += images.named(batch).await?.len() as u64;
    }
    Ok(count)
}

impl Census {
    fn add(&mut self, listed: Vec<Listed>, trashed: Vec<Listed>, named: &HashSet<String>) {
        let originals: HashSet<String> =
            listed.iter().map(|file| &file.location).filter(|name| is_original(name)).cloned().collect();
        self.rows += named.len() as u64;
        self.files += originals.len() as u64;
        for file in listed {
            let original = original_of(&file.location);
            if is_original(&file.location) {
                if !named.contains(original) {
                    self.files_without_row += 1;
                    remember(&mut self.unnamed, file);
                }
            } else if file.location.contains('#')
                || is_outdated(&file.location)
                || !(named.contains(original) || originals.contains(original))
            {
                remember(&mut self.leftovers, file);
            }
        }
        self.trashed += trashed.len() as u64;
        for file in trashed {
            if named.contains(&file.location) {
                remember(&mut self.wanted, file.location);
            } else {
                remember(&mut self.discarded, file);
            }
        }
    }

    /// How long ago the oldest of `files` was written, at the moment `now` of the store.
    pub(crate) fn oldest<'a>(files: impl IntoIterator<Item = &'a Listed>, now: SystemTime) -> Duration {
        files.into_iter().map(|file| file.age(now)).max().unwrap_or_default()
    }
}

impl Listed {
    /// The file's age at the moment `now` of the store.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.written).unwrap_or_default()
    }
}

/// Whether this is the name of an original: an image as it was stored.
fn is_original(name: &str) -> bool {
    !name.contains('#') && original_of(name) == name
}

fn remember<T>(names: &mut Vec<T>, name: T) {
    if names.len() < MOST_NAMES {
        names.push(name);
    }
}
