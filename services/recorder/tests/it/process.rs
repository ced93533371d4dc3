use std::time::{Duration, Instant};

use testkit::{Database, MariaDb, NatsServer, eventually, free_port};

use crate::helpers::*;

#[tokio::test]
async fn a_stop_ends_it_without_an_error_and_leaves_nothing_behind() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    let _asker = Asker::connect(&nats).await;
    for sequence in 1..=300 {
        worker.publish(&window("life", sequence)).await;
    }
    let start = Instant::now();
    recorder.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    let operator = nats.connect("operator").await;
    let gone = operator.request("$SRV.PING.recorder", "".into()).await;
    assert!(gone.is_err());
    let recorder = Recorder::spawn(config(&nats, &database));
    wait_for_windows(&database, "life", 300).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_while_it_waits_for_its_servers_ends_it_at_once() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let mut nowhere = config(&nats, &database);
    nowhere.nats.nats_url = Some(format!("nats://127.0.0.1:{}", free_port()));
    let recorder = Recorder::spawn(nowhere);
    let start = Instant::now();
    recorder.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stop_without_mysql_or_nats_is_clean_and_in_time() {
    let (nats, server) = (NatsServer::start().await, MariaDb::start().await);
    let database = server.database().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;

    server.stop().await;
    worker.publish(&window("life", 2)).await;
    nats.stop().await;
    let start = Instant::now();
    recorder.stop().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());

    nats.start_again().await;
    server.start_again().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    wait_for_windows(&database, "life", 2).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn servers_that_come_later_are_waited_for() {
    let (nats, server) = (NatsServer::start().await, MariaDb::start().await);
    let database = server.database().await;
    nats.stop().await;
    server.stop().await;
    let recorder = Recorder::spawn(config(&nats, &database));
    server.start_again().await;
    nats.start_again().await;
    let worker = Worker::connect(&nats).await;
    worker.publish(&window("life", 1)).await;
    wait_for_windows(&database, "life", 1).await;
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn servers_that_do_not_come_end_it_with_the_reason() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let nowhere = free_port();

    let mut no_nats = config(&nats, &database);
    no_nats.process.dependency_timeout_s = 1;
    no_nats.nats.nats_url = Some(format!("nats://127.0.0.1:{nowhere}"));
    let mut wrong_password = config(&nats, &database);
    wrong_password.process.dependency_timeout_s = 1;
    wrong_password.nats_password = "wrong".to_owned();
    let mut wrong_setup_password = config(&nats, &database);
    wrong_setup_password.process.dependency_timeout_s = 1;
    wrong_setup_password.nats_setup_password = "wrong".to_owned();
    let mut no_mysql = config(&nats, &database);
    no_mysql.process.dependency_timeout_s = 1;
    no_mysql.migration_database_url = format!("mysql://a:b@127.0.0.1:{nowhere}/c");
    let mut bad_url = config(&nats, &database);
    bad_url.database_url = "mysql://user:secret@host".to_owned();

    for (config, reason) in [
        (no_nats, "NATS"),
        (wrong_password, "password"),
        (wrong_setup_password, "the user setup"),
        (no_mysql, "MySQL"),
        (bad_url, "RECORDER_DATABASE_URL"),
    ] {
        let error = format!("{:#}", Recorder::spawn(config).ended().await.unwrap_err());
        assert!(error.contains(reason) && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_recorder_that_the_server_refuses_something_ends_and_says_what() {
    let database = Database::empty().await;
    for (user, right) in [
        ("recorder", "stats.*"),
        ("recorder_own", "$JS.STORE.API.CONSUMER.MSG.NEXT.CACHE_EVENTS.recorder_windows"),
        ("setup", "$JS.STORE.API.CONSUMER.DURABLE.CREATE.CACHE_EVENTS.recorder_windows"),
    ] {
        let nats = NatsServer::start_without(&[right]).await;
        let error = format!("{:#}", Recorder::spawn(config(&nats, &database)).ended().await.unwrap_err());
        let refusal = format!("the NATS server refuses {user} to ");
        assert!(error.contains(&refusal) && error.contains(right), "{error}");
    }
}

#[tokio::test]
async fn it_is_a_service_that_tools_find_and_understand() {
    let (nats, database) = (NatsServer::start().await, Database::empty().await);
    let recorder = Recorder::spawn(config(&nats, &database));
    let _asker = Asker::connect(&nats).await;
    let operator = nats.connect("operator").await;
    let ask = async |subject: &'static str| -> serde_json::Value {
        serde_json::from_slice(&operator.request(subject, "".into()).await.unwrap().payload).unwrap()
    };
    assert_eq!(ask("$SRV.PING.recorder").await["version"], env!("CARGO_PKG_VERSION"));
    eventually("all endpoints are listed", SOON, async || {
        let info = ask("$SRV.INFO.recorder").await;
        let mut names: Vec<_> = info["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| endpoint["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names == ["config_history", "series", "unknown"]
    })
    .await;
    assert_eq!(ask("$SRV.STATS.recorder").await["endpoints"].as_array().unwrap().len(), 3);
    recorder.stop().await.unwrap();
}
