//! Files in memory (tmpfs) that the processes of one machine share, so that large values need not cross the bus.
//!
//! Each process writes into a folder of its own below a common root, and reads those of others. Only its owner can write
//! in a folder or change a file. No name is used twice. A file has its whole content as soon as its name is told, and
//! never another one; it goes with the value that it holds. What a dead process has left is removed by the next that starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use wire::shelf::{FileName, Folder};

/// The name of the file in each folder, and in the root, that is locked for as long as its owner lives.
const LOCK: &str = "lock";
/// How often, and after which pauses, the lock of the root is tried: for two seconds.
const LOCK_TRIES: usize = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The part of the file system that stays free for others: one in this many of its blocks.
const SPARED: u64 = 8;

/// The folder of this process, and the way into those of others. Clones share it.
#[derive(Debug, Clone)]
pub struct Shelf(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    own: Folder,
    next: AtomicU64,
    /// Locked until this process ends.
    _lock: File,
}

/// A file of this process, removed when this is dropped.
#[derive(Debug)]
pub struct Shelved {
    shelf: Shelf,
    number: u64,
    size: u64,
}

impl Shelf {
    /// Makes a folder in `root`, and removes those of processes that are gone.
    ///
    /// `root` is made if it is missing, for this user alone.
    ///
    /// # Errors
    /// When `root` is no folder on a tmpfs, is another user's, or can be written by everybody.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let made = fs::DirBuilder::new().mode(0o700).create(root);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("{} can't be made", root.display()));
        }
        let found =
            fs::symlink_metadata(root).with_context(|| format!("{} can't be read", root.display()))?;
        ensure!(found.is_dir(), "SHARED_DIR must be a folder, got {}", root.display());
        let me = rustix::process::geteuid().as_raw();
        ensure!(
            (found.uid() == me || found.uid() == 0) && found.mode() & 0o002 == 0,
            "SHARED_DIR must belong to this user or to root and not be writable by everybody, got {}",
            root.display()
        );
        ensure!(
            is_in_memory(root)?,
            "SHARED_DIR must be on a tmpfs such as /dev/shm, got {}",
            root.display()
        );

        // Two that start at once must not take each other's new folder for one that was left.
        let _together = lock_soon(&root.join(LOCK))?;
        remove_left_ones(root);
        let own = Folder(rand::random());
        let folder = root.join(own.to_string());
        let mode = if found.mode() & 0o070 == 0 { 0o700 } else { 0o750 };
        fs::DirBuilder::new().mode(mode).create(&folder)?;
        let lock = lock_file(&folder.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let inner = Inner { root: root.to_owned(), own, next: AtomicU64::new(0), _lock: lock };
        Ok(Self(Arc::new(inner)))
    }

    /// The folder of this process.
    pub fn own(&self) -> Folder {
        self.0.own
    }

    /// Whether files of that folder can be read here.
    pub fn can_read(&self, folder: Folder) -> bool {
        File::open(self.0.root.join(folder.to_string()).join(LOCK)).is_ok()
    }

    /// Writes a file into the folder of this process.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when less than an eighth of the file system would stay free; any other failure.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Shelved> {
        let room = rustix::fs::statvfs(&self.0.root)?;
        let needed = (bytes.len() as u64).div_ceil(room.f_frsize.max(1)) + room.f_blocks / SPARED;
        if room.f_bavail < needed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o440)
            .open(self.path(self.0.own, number))?;
        // From here on the file goes if it can't be written.
        let shelved = Shelved { shelf: self.clone(), number, size: bytes.len() as u64 };
        file.write_all(bytes)?;
        Ok(shelved)
    }

    /// Reads a file of any folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is gone; [`io::ErrorKind::InvalidData`] when it does not have `size` bytes.
    pub fn read(&self, name: FileName, size: u64) -> io::Result<Bytes> {
        let file = File::from(self.find(name)?);
        let found = file.metadata()?;
        if !found.is_file() || found.len() != size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(io::Error::other)?);
        file.take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == size { Ok(bytes.into()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Opens a file. Another user of the root may have put anything under its name: no link is followed, and a pipe is not
    /// waited for.
    fn find(&self, name: FileName) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = self.0.root.join(name.folder.to_string());
        let folder = rustix::fs::open(&folder, flags | OFlags::DIRECTORY, Mode::empty())?;
        let file = format!("{:x}", name.number);
        Ok(rustix::fs::openat(&folder, file, flags | OFlags::NONBLOCK, Mode::empty())?)
    }

    fn path(&self, folder: Folder, number: u64) -> PathBuf {
        self.0.root.join(folder.to_string()).join(format!("{number:x}"))
    }
}

impl Shelved {
    /// The name by which others read it.
    pub fn name(&self) -> FileName {
        FileName { folder: self.shelf.own(), number: self.number }
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads it back.
    ///
    /// # Errors
    /// As [`Shelf::read`]: somebody else has removed it.
    pub fn read(&self) -> io::Result<Bytes> {
        self.shelf.read(self.name(), self.size)
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        let path = self.shelf.path(self.shelf.own(), self.number);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, path = %path.display(), "a shared file stays until the next start");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.root.join(self.own.to_string()));
    }
}

/// Locks a file. Another user of the root may hold it for ever.
fn lock_soon(path: &Path) -> anyhow::Result<File> {
    let file = lock_file(path)?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error).with_context(|| format!("{} can't be locked", path.display())),
        }
    }
    anyhow::bail!("{} is locked by another process", path.display())
}

/// Opens a file to lock it, which needs no right to write it; it may be another user's.
fn lock_file(path: &Path) -> anyhow::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let open = || OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = open().or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
            // Another process may have just made it.
            made.or_else(|_| open())
        }
        _ => Err(error),
    });
    opened.with_context(|| format!("{} can't be opened", path.display()))
}

/// Whether the folder is on a tmpfs.
#[cfg(target_os = "linux")]
fn is_in_memory(root: &Path) -> io::Result<bool> {
    /// As `statfs` tells of a tmpfs.
    const TMPFS: i64 = 0x0102_1994;
    Ok(rustix::fs::statfs(root)?.f_type == TMPFS)
}

/// Elsewhere there is none.
#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Removes the folders whose owners are gone. Those of other users stay for them.
fn remove_left_ones(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let is_folder = entry.file_name().to_str().is_some_and(|name| name.parse::<Folder>().is_ok());
        let path = entry.path();
        if is_folder
            && let Ok(lock) = File::open(path.join(LOCK))
            && rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(folder = %path.display(), "shared files of a process that is gone are removed")
                }
                Err(error) => {
                    tracing::debug!(%error, folder = %path.display(), "shared files of another user stay")
                }
            }
        }
    }
}

/// The value of `SHARED_DIR` that stands for a folder of this user.
pub const AUTO: &str = "auto";
/// The value of `SHARED_DIR` that stands for no folder.
pub const OFF: &str = "off";

/// The shelf that `SHARED_DIR` names; none for [`OFF`], and none if it can't be used: then all bytes cross the bus.
pub fn from_setting(value: &str) -> Option<Shelf> {
    let root = match value {
        OFF | "" => return None,
        AUTO => PathBuf::from(format!("/dev/shm/pixcache-{}", rustix::process::geteuid().as_raw())),
        folder => PathBuf::from(folder),
    };
    match Shelf::open(&root) {
        Ok(shelf) => Some(shelf),
        Err(error) if value == AUTO => {
            tracing::info!("large images cross the bus, because there are no shared files: {error:#}");
            None
        }
        Err(error) => {
            tracing::warn!("large images cross the bus, because shared files can't be used: {error:#}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::Builder::new().prefix("pixcache-test-").tempdir_in("/dev/shm").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        root
    }

    #[test]
    fn what_one_writes_the_other_reads_until_it_is_dropped() {
        let root = root();
        let (one, other) = (Shelf::open(root.path()).unwrap(), Shelf::open(root.path()).unwrap());
        assert!(one.own() != other.own() && other.can_read(one.own()));
        let bytes = vec![7; 100_000];
        let shelved = one.write(&bytes).unwrap();
        let name: FileName = shelved.name().to_string().parse().unwrap();
        assert_eq!(other.read(name, 100_000).unwrap(), bytes);
        assert_eq!(other.read(name, 99_999).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(shelved);
        assert_eq!(other.read(name, 100_000).unwrap_err().kind(), io::ErrorKind::NotFound);
        let next = one.write(&bytes).unwrap();
        assert_ne!(next.name(), name);
    }

    #[test]
    fn what_a_dead_process_left_goes_and_what_lives_stays() {
        let root = root();
        let left = root.path().join(Folder(1).to_string());
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        fs::write(left.join("0"), "bytes").unwrap();
        fs::write(root.path().join("something else"), "").unwrap();
        let one = Shelf::open(root.path()).unwrap();
        assert!(!left.exists() && root.path().join("something else").exists());
        let _other = Shelf::open(root.path()).unwrap();
        assert!(one.write(b"still there").is_ok());
    }

    #[test]
    fn a_root_that_others_could_use_is_refused_with_the_reason() {
        let root = root();
        let refused = |path: &Path| Shelf::open(path).unwrap_err().to_string();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&open).contains("not be writable by everybody"));
        let link = root.path().join("link");
        symlink(root.path(), &link).unwrap();
        assert!(refused(&link).contains("must be a folder"));
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert!(refused(disk.path()).contains("must be on a tmpfs"));
        assert!(refused(&root.path().join("no/such")).contains("can't be made"));
    }

    #[test]
    fn a_name_leads_to_no_other_file() {
        let root = root();
        let shelf = Shelf::open(root.path()).unwrap();
        let folder = root.path().join(shelf.own().to_string());
        symlink("/etc/passwd", folder.join("ff")).unwrap();
        let name = FileName { folder: shelf.own(), number: 0xff };
        assert!(shelf.read(name, fs::metadata("/etc/passwd").unwrap().len()).is_err());
        for text in [
            "",
            ".",
            "../etc.1",
            "0123456789abcdef",
            "0123456789abcdef.",
            "0123456789abcdef.g",
            "0123456789abcdef.1.2",
        ] {
            assert!(text.parse::<FileName>().is_err(), "{text}");
        }
    }
}
