//! The test servers themselves: that they start, obey, and are gone afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use testkit::database::Account;
use testkit::{Database, Guardian, MariaDb, NatsServer, Order, eventually, samples};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_nats_server_keeps_its_port_over_stop_kill_and_restart() {
    let server = NatsServer::start().await;
    let client = server.connect("operator").await;
    let answers =
        async || client.flush().await.is_ok() && client.connection_state().to_string() == "connected";
    assert!(answers().await);

    server.restart().await;
    eventually("the client is connected again after a restart", SOON, answers).await;
    server.kill().await;
    eventually("the client has seen the server die", SOON, async || {
        client.connection_state().to_string() != "connected"
    })
    .await;
    server.start_again().await;
    eventually("the client is connected again after a crash", SOON, answers).await;
    server.pause().await;
    server.resume().await;
    assert!(answers().await);
}

/// Whether what is said through `from` is heard through `to`.
async fn reaches(from: &async_nats::Client, to: &async_nats::Client) -> bool {
    let mut heard = to.subscribe("cache.stats").await.unwrap();
    to.flush().await.unwrap();
    for _ in 0..20 {
        from.publish("cache.stats", "".into()).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(100), heard.next()).await.is_ok() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn two_nats_servers_are_one_until_their_route_is_cut_and_again_when_it_is_healed() {
    let (servers, route) = NatsServer::start_pair().await;
    let (asker, answerer) = (servers[0].connect("gateway").await, servers[1].connect("memcache").await);
    assert!(reaches(&asker, &answerer).await);
    route.cut();
    eventually("the route is gone", SOON, async || !reaches(&asker, &answerer).await).await;
    route.heal();
    eventually("the route is back", SOON, async || reaches(&asker, &answerer).await).await;
}

#[tokio::test]
async fn a_nats_server_takes_nobody_without_a_password() {
    let server = NatsServer::start().await;
    assert!(async_nats::connect(server.url()).await.is_err());
    for user in ["gateway", "memcache", "recorder", "operator"] {
        server.connect(user).await;
    }
}

#[tokio::test]
async fn each_test_has_a_database_with_the_rights_of_a_deployment() {
    let (one, other) = (Database::migrated().await, Database::migrated().await);
    assert_ne!(one.name(), other.name());
    let count = async |database: &Database, account, sql: &'static str| {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut database.connect(account).await).await
    };
    for (account, own, foreign) in [
        (Account::Gateway, "SELECT COUNT(*) FROM images", "SELECT COUNT(*) FROM cache_stats"),
        (Account::Recorder, "SELECT COUNT(*) FROM cache_stats", "SELECT COUNT(*) FROM images"),
    ] {
        assert_eq!(count(&one, account, own).await.unwrap(), 0);
        assert!(count(&one, account, foreign).await.is_err());
    }
    assert_eq!(count(&other, Account::Migration, "SELECT COUNT(*) FROM images").await.unwrap(), 0);
}

#[tokio::test]
async fn a_database_server_keeps_what_was_committed_over_a_crash() {
    let server = MariaDb::start().await;
    let database = server.database().await;
    let mut admin = database.connect(Account::Admin).await;
    sqlx::raw_sql("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)").execute(&mut admin).await.unwrap();
    server.kill().await;
    server.start_again().await;
    let mut admin = database.connect(Account::Admin).await;
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT a FROM t").fetch_one(&mut admin).await.unwrap(), 7);
}

/// What the next test runs in a process of its own: it prints its servers' ports and waits to be killed.
#[tokio::test]
async fn victim() {
    if std::env::var_os("TESTKIT_VICTIM").is_none() {
        return;
    }
    let nats = NatsServer::start().await;
    let database = Database::empty().await;
    let port: u16 = sqlx::query_scalar("SELECT CAST(@@port AS UNSIGNED)")
        .fetch_one(&mut database.connect(Account::Admin).await)
        .await
        .map(|port: u64| port.try_into().unwrap())
        .unwrap();
    println!("ports {} {port}", nats.port());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_and_folders_are_gone_when_the_test_process_is_killed() {
    use std::io::{BufRead, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env("TESTKIT_VICTIM", "1")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("ports ").map(|(_, ports)| ports.to_owned()))
        .unwrap();
    let ports: Vec<u16> = line.split(' ').map(|port| port.parse().unwrap()).collect();
    let listens = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
    assert!(ports.len() == 2 && ports.iter().all(listens));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the servers are gone", SOON, async || !ports.iter().any(listens)).await;
    eventually("their folders are gone", SOON, async || {
        std::fs::read_dir(folder.path()).unwrap().next().is_none()
    })
    .await;
}

#[tokio::test]
async fn what_a_server_has_started_is_gone_with_it() {
    let mut guardian = Guardian::new(|folder| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 1000 & echo $! >\"$0/child\"; wait"]).arg(folder);
        command
    });
    guardian.order(Order::Start);
    let file = guardian.folder().join("child");
    let child = eventually("it has started its child", SOON, async || {
        std::fs::read_to_string(&file).ok()?.trim_end().parse::<u32>().ok()
    });
    let status = format!("/proc/{}/status", child.await);
    let lives = || std::fs::read_to_string(&status).is_ok_and(|status| !status.contains("\nState:\tZ"));
    assert!(lives());
    drop(guardian);
    eventually("the child is gone", SOON, async || !lives()).await;
}

#[test]
fn the_samples_are_what_they_say() {
    assert_eq!(samples::all().len(), 7);
    assert!(samples::chelsea().bytes.starts_with(b"\x89PNG"));
    for sample in samples::all().into_iter().filter(|sample| sample.content_type == "image/jpeg") {
        assert!(sample.bytes.starts_with(b"\xff\xd8\xff"), "{}", sample.name);
    }
}
