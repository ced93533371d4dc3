//! The files of `migrations/`, which are part of this program.
//!
//! The list is written out. sqlx's macro would read the folder, and with it sqlx and all that it needs would be compiled
//! a second time, for the compiler's own use.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType};

/// Each file by its name, which is a version and a description, and its text.
macro_rules! files {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../../migrations/", $name, ".sql")))),*]
    };
}

const FILES: [(&str, &str); 12] = files!(
    "0001_images"
    "0002_pending_invalidations"
    "0003_cache_properties"
    "0004_cache_stats"
    "0005_cache_stats_rollup"
    "0006_cache_stats_near_hits"
    "0007_cache_stats_rollup_near_hits"
    "0008_images_size"
    "0009_origin_identity"
    "0010_images_earlier_at"
    "0011_deleted_dates"
    "0012_images_sized_location"
);

/// All migrations, in the order in which they are applied.
pub(crate) fn all() -> Vec<Migration> {
    let of_file = |(name, text): (&'static str, &'static str)| {
        let (version, description) = name.split_once('_')?;
        let description = Cow::Owned(description.replace('_', " "));
        let version = version.parse().ok()?;
        Some(Migration::new(version, description, MigrationType::Simple, text.into_sql_str(), false))
    };
    FILES.into_iter().filter_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use sqlx::migrate::MigrationSource as _;

    use super::*;

    #[tokio::test]
    async fn the_list_is_what_the_folder_holds() {
        let folder = testkit::repository_root().join("migrations");
        let found = folder.resolve().await.unwrap();
        let facts = |migration: &Migration| {
            let Migration { version, description, migration_type, checksum, no_tx, .. } = migration.clone();
            (version, description, migration_type, checksum, no_tx)
        };
        let (mut found, listed): (Vec<_>, Vec<_>) =
            (found.iter().map(facts).collect(), all().iter().map(facts).collect());
        found.sort_by_key(|(version, ..)| *version);
        assert_eq!(listed, found);
    }
}
