use std::path::{Path, PathBuf};

/// The folders of servers that are not on an ordinary user's PATH.
const SERVER_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"];

/// The program `name`, from PATH or one of the folders where servers are installed.
///
/// # Panics
/// When there is none: a test without its server has not passed.
pub(crate) fn find(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SERVER_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
        .unwrap_or_else(|| {
            panic!(
                "{name} is not installed, and the tests need a real one: \
                 run `apt-get install {package}`, or bin/test, which does it"
            )
        })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
