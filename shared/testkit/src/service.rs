//! The binaries of the services, for tests of one service beside another.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The binary of the service `name`, as built with the profile of the running test.
///
/// Services don't depend on each other, so cargo builds it for this test only when the whole workspace is
/// tested. It is not built from here: a build of one package alone has other features in its
/// dependencies, and would compile half of them again.
///
/// # Panics
/// When it is not there, or older than its sources, with a sentence that says what to do.
pub fn service_binary(name: &str) -> PathBuf {
    // A test lies in target/<profile>/deps.
    let test = std::env::current_exe().expect("a test has a path");
    let binary = test.ancestors().nth(2).expect("it lies two folders deep").join(name);
    let advice =
        format!("run `cargo build --workspace` first, or `cargo test --workspace`, which builds {name}");
    let Some(built) = modified(&binary) else { panic!("{} is not there: {advice}", binary.display()) };
    let newest = sources(&binary).iter().filter_map(|source| modified(source)).max();
    assert!(
        newest.is_none_or(|newest| newest <= built),
        "{} is older than its sources: {advice}",
        binary.display()
    );
    binary
}

/// The sources of a binary, as cargo lists them in the file beside it: `binary: source source`.
fn sources(binary: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    // A blank within a path is escaped.
    let escaped = list.replace("\\ ", "\0");
    escaped.split_whitespace().skip(1).map(|path| path.replace('\0', " ").into()).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
