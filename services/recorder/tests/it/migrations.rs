use std::collections::BTreeSet;

use recorder::repository::{MigrationError, migrate};
use sqlx::Connection as _;
use sqlx::mysql::MySqlConnectOptions;
use testkit::Database;
use testkit::database::Account;

use crate::helpers::*;

async fn apply(database: &Database) -> Result<(), MigrationError> {
    let account: MySqlConnectOptions = database.url(Account::Migration).parse().unwrap();
    migrate(&account, &database.user(Account::Gateway), &database.user(Account::Recorder)).await
}

#[tokio::test]
async fn starts_at_the_same_time_migrate_once() {
    let database = Database::empty().await;
    let starts = [(); 8].map(|()| apply(&database));
    for outcome in futures_util::future::join_all(starts).await {
        outcome.unwrap();
    }
    apply(&database).await.unwrap();
    let files = std::fs::read_dir(testkit::repository_root().join("migrations")).unwrap().count();
    assert_eq!(
        value(&database, "SELECT COUNT(*) FROM _sqlx_migrations WHERE success").await,
        Some(files as i64)
    );
}

#[tokio::test]
async fn a_migration_that_was_cut_short_is_repeated() {
    let database = Database::empty().await;
    apply(&database).await.unwrap();
    let mut admin = database.connect(Account::Admin).await;
    // As a start that died before, and one that died after its statement.
    execute(&mut admin, "UPDATE _sqlx_migrations SET success = FALSE WHERE version IN (4, 5)").await.unwrap();
    execute(&mut admin, "DROP TABLE cache_stats_rollup").await.unwrap();
    apply(&database).await.unwrap();
    assert_eq!(value(&database, "SELECT COUNT(*) FROM cache_stats_rollup").await, Some(0));
    assert_eq!(value(&database, "SELECT COUNT(*) FROM _sqlx_migrations WHERE NOT success").await, Some(0));
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let database = Database::empty().await;
    apply(&database).await.unwrap();
    let mut admin = database.connect(Account::Admin).await;
    execute(&mut admin, "UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1").await.unwrap();
    let error = apply(&database).await.unwrap_err();
    assert!(matches!(error, MigrationError::Migrate(_)) && !error.may_pass(), "{error}");
}

#[tokio::test]
async fn each_account_has_rights_on_its_own_tables_and_nothing_else() {
    let database = Database::empty().await;
    apply(&database).await.unwrap();
    let tables = [
        ("images", Some(Account::Gateway)),
        ("pending_invalidations", Some(Account::Gateway)),
        ("cache_properties", Some(Account::Recorder)),
        ("cache_stats", Some(Account::Recorder)),
        ("cache_stats_rollup", Some(Account::Recorder)),
        ("_sqlx_migrations", None),
    ];
    let mut gateway = database.connect(Account::Gateway).await;
    let mut recorder = database.connect(Account::Recorder).await;
    for (table, owner) in tables {
        for (account, connection) in [(Account::Gateway, &mut gateway), (Account::Recorder, &mut recorder)] {
            for statement in
                [format!("SELECT COUNT(*) FROM {table}"), format!("DELETE FROM {table} WHERE 1 = 0")]
            {
                let allowed = execute(connection, statement.clone()).await.is_ok();
                assert_eq!(allowed, owner == Some(account), "{account:?}: {statement}");
            }
            for statement in [
                format!("DROP TABLE {table}"),
                format!("ALTER TABLE {table} ADD COLUMN extra INT"),
                "CREATE TABLE mine (id INT PRIMARY KEY)".to_owned(),
            ] {
                assert!(execute(connection, statement.clone()).await.is_err(), "{account:?}: {statement}");
            }
        }
    }
    gateway.close().await.unwrap();
    recorder.close().await.unwrap();
}

#[tokio::test]
async fn an_account_s_name_can_t_smuggle_in_a_statement() {
    let database = Database::empty().await;
    let account: MySqlConnectOptions = database.url(Account::Migration).parse().unwrap();
    for name in ["", "a'@'%' WITH GRANT OPTION; -- ", "a b"] {
        let error = migrate(&account, name, "recorder").await.unwrap_err();
        assert!(matches!(error, MigrationError::AccountName(_)));
    }
}

#[tokio::test]
async fn the_columns_of_both_tables_of_counts_are_the_counters_of_a_window() {
    let database = Database::migrated().await;
    for table in ["cache_stats", "cache_stats_rollup"] {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?",
        )
        .bind(table)
        .fetch_all(&mut database.connect(Account::Admin).await)
        .await
        .unwrap();
        let columns: BTreeSet<&str> = columns.iter().map(String::as_str).collect();
        assert!(wire::Counters::NAMES.iter().all(|name| columns.contains(name)), "{table}: {columns:?}");
    }
}
