//! Names of files that processes of one machine share.

use std::fmt;
use std::str::FromStr;

/// The folder of one life of a process: 16 hexadecimal digits, drawn anew in each life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Folder(pub u64);

/// A file in such a folder, as `<folder>.<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileName {
    /// The folder of the process that wrote it.
    pub folder: Folder,
    /// Its number there, never used twice.
    pub number: u64,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Folder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_plain { u64::from_str_radix(text, 16).map(Self).map_err(|_| ()) } else { Err(()) }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.folder, self.number)
    }
}

impl FromStr for FileName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (folder, number) = text.split_once('.').ok_or(())?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let number = u64::from_str_radix(number, 16).map_err(|_| ())?;
        Ok(Self { folder: folder.parse()?, number })
    }
}
