//! The binaries of the services, for tests of one service beside another.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::basics::repository_root;

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
    let built = binary.metadata().and_then(|metadata| metadata.modified());
    let Ok(built) = built else { panic!("{} is not there: {advice}", binary.display()) };
    let root = repository_root();
    let sources = [
        format!("services/{name}/src"),
        "shared/wire/src".into(),
        "shared/runtime/src".into(),
        "shared/sniff/src".into(),
    ];
    let newest = sources.iter().filter_map(|folder| newest_below(&root.join(folder))).max();
    assert!(
        newest.is_none_or(|newest| newest <= built),
        "{} is older than its sources: {advice}",
        binary.display()
    );
    binary
}

fn newest_below(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    let times = entries.filter_map(Result::ok).filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            newest_below(&path)
        } else {
            path.metadata().and_then(|metadata| metadata.modified()).ok()
        }
    });
    times.max()
}
