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
    use Account::{Gateway, Migration, Recorder};
    let (database, other) = (Database::empty().await, Database::empty().await);
    apply(&database).await.unwrap();
    apply(&other).await.unwrap();
    let foreign = other.name();
    let tables = [
        ("images", "image_key", Some(Gateway)),
        ("pending_invalidations", "image_key", Some(Gateway)),
        ("deleted_dates", "image_key", Some(Gateway)),
        ("cache_properties", "revision", Some(Recorder)),
        ("cache_stats", "sequence", Some(Recorder)),
        ("cache_stats_rollup", "interval_start", Some(Recorder)),
        ("_sqlx_migrations", "version", None),
    ];
    // Each statement, and who of those that try it may. Those that somebody may change nothing.
    let all = [Gateway, Recorder, Migration];
    let mut statements: Vec<(String, &[Account], Vec<Account>)> = Vec::new();
    for (table, column, owner) in tables {
        for statement in [
            format!("SELECT COUNT(*) FROM {table}"),
            format!("INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0"),
            format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
            format!("DELETE FROM {table} WHERE 1 = 0"),
        ] {
            statements.push((statement, &all, owner.into_iter().chain([Migration]).collect()));
        }
        statements.push((format!("ALTER TABLE {table} COMMENT = ''"), &all, vec![Migration]));
        statements.push((format!("SELECT COUNT(*) FROM {foreign}.{table}"), &all, vec![]));
        statements.push((format!("DROP TABLE {foreign}.{table}"), &all, vec![]));
        // This is the very work of the account that migrates, and would end this test.
        for statement in [format!("DROP TABLE {table}"), format!("TRUNCATE TABLE {table}")] {
            statements.push((statement, &[Gateway, Recorder], vec![]));
        }
    }
    for statement in [
        "CREATE TABLE mine (id INT PRIMARY KEY)",
        "CREATE TRIGGER mine BEFORE INSERT ON images FOR EACH ROW SET NEW.image_key = 'x'",
        "CREATE TRIGGER mine BEFORE INSERT ON cache_stats FOR EACH ROW SET NEW.sequence = 1",
        "CREATE PROCEDURE mine() SELECT 1",
        "RENAME TABLE images TO mine",
        "RENAME TABLE cache_stats TO mine",
    ] {
        statements.push((statement.to_owned(), &[Gateway, Recorder], vec![]));
    }
    for statement in [
        "CREATE DATABASE mine",
        "CREATE USER mine",
        "GRANT ALL ON *.* TO CURRENT_USER()",
        "SET PASSWORD FOR 'root'@'localhost' = ''",
        "SELECT COUNT(*) FROM mysql.global_priv",
        "SET GLOBAL max_connections = 1",
        "SELECT 1 INTO OUTFILE '/tmp/mine'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE images (location)",
        "SHUTDOWN",
    ] {
        statements.push((statement.to_owned(), &all, vec![]));
    }
    for account in all {
        let mut connection = database.connect(account).await;
        for (statement, _, allowed) in statements.iter().filter(|(_, tried, _)| tried.contains(&account)) {
            let outcome = execute(&mut connection, statement.clone()).await;
            assert_eq!(outcome.is_ok(), allowed.contains(&account), "{account:?}: {statement}: {outcome:?}");
        }
        connection.close().await.unwrap();
    }
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
