//! What each user of `nats.conf` may do: every subject below is tried by every role on a real server,
//! and what the server says is compared with the table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use testkit::{NatsServer, repository_root};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ROLES: [&str; 4] = ["gateway", "memcache", "recorder", "operator"];
const PATIENCE: Duration = Duration::from_secs(20);

/// A subject, and who may publish there.
#[rustfmt::skip]
const PUBLISH: &[(&str, &[&str])] = &[
    // What the worker is asked.
    ("cache.get.cat",                                   &["gateway", "operator"]),
    ("cache.get.cat.w160",                              &["gateway", "operator"]),
    ("cache.put.cat",                                   &["gateway", "operator"]),
    ("cache.invalidate.cat",                            &["gateway", "operator"]),
    ("cache.clear",                                     &["gateway", "operator"]),
    ("cache.config.get",                                &["gateway", "operator"]),
    ("cache.config.set",                                &["gateway", "operator"]),
    ("cache.config.refresh",                            &["operator"]),
    ("cache.stats",                                     &["gateway", "operator"]),
    ("cache.keys",                                      &["gateway", "operator"]),
    ("cache.watch",                                     &["gateway", "operator"]),
    ("cache.nonsense",                                  &["operator"]),
    // Near leases. Nobody but a gateway reports hits, nobody but the worker takes copies back.
    ("cache.near.hits",                                 &["gateway"]),
    ("cache.near.drop.1",                               &["memcache"]),
    ("cache.near.drop.1.2",                             &[]),
    // What the recorder is asked.
    ("stats.series",                                    &["gateway", "operator"]),
    ("stats.config_history",                            &["gateway", "operator"]),
    ("stats.nonsense",                                  &["operator"]),
    ("stats.series.more",                               &[]),
    // What the worker says by itself. Nobody else may invent a figure.
    ("cache.event.window.memcache-1",                   &["memcache"]),
    ("cache.event.configured.memcache-1",               &["memcache"]),
    ("cache.event.cleared.memcache-1",                  &["memcache"]),
    ("cache.event.key.hit.cat",                         &["memcache"]),
    // Replies to others go out only as an answer; one's own inbox is for whoever proves a connection so.
    ("_INBOX_gateway.1.2",                              &[]),
    ("_INBOX_memcache.1.2",                             &["memcache"]),
    ("_INBOX_recorder.1.2",                             &[]),
    ("_INBOX_operator.1.2",                             &[]),
    ("_INBOX.1.2",                                      &[]),
    // The buckets. What is in force changes by cache.config.set alone.
    ("$KV.CACHE_CONFIG.live",                           &["memcache"]),
    ("$KV.CACHE_CONFIG.other",                          &[]),
    ("$KV.CACHE_OWNERS.0",                              &["memcache"]),
    ("$KV.OTHER.x",                                     &[]),
    // Streams.
    ("$JS.API.INFO",                                    &["operator"]),
    ("$JS.API.STREAM.NAMES",                            &["operator"]),
    ("$JS.API.STREAM.LIST",                             &["operator"]),
    ("$JS.API.STREAM.INFO.CACHE_EVENTS",                &["recorder", "operator"]),
    ("$JS.API.STREAM.INFO.KV_CACHE_CONFIG",             &["memcache", "recorder", "operator"]),
    ("$JS.API.STREAM.INFO.KV_CACHE_OWNERS",             &["memcache", "operator"]),
    ("$JS.API.STREAM.INFO.OTHER",                       &["operator"]),
    ("$JS.API.STREAM.CREATE.CACHE_EVENTS",              &["memcache", "recorder"]),
    ("$JS.API.STREAM.CREATE.KV_CACHE_CONFIG",           &["memcache", "recorder"]),
    ("$JS.API.STREAM.CREATE.KV_CACHE_OWNERS",           &["memcache"]),
    ("$JS.API.STREAM.CREATE.OTHER",                     &[]),
    ("$JS.API.STREAM.UPDATE.CACHE_EVENTS",              &[]),
    ("$JS.API.STREAM.UPDATE.KV_CACHE_CONFIG",           &[]),
    ("$JS.API.STREAM.UPDATE.KV_CACHE_OWNERS",           &[]),
    ("$JS.API.STREAM.DELETE.CACHE_EVENTS",              &[]),
    ("$JS.API.STREAM.DELETE.KV_CACHE_CONFIG",           &[]),
    ("$JS.API.STREAM.DELETE.KV_CACHE_OWNERS",           &[]),
    ("$JS.API.STREAM.PURGE.CACHE_EVENTS",               &[]),
    ("$JS.API.STREAM.PURGE.KV_CACHE_CONFIG",            &[]),
    ("$JS.API.STREAM.PURGE.KV_CACHE_OWNERS",            &[]),
    ("$JS.API.STREAM.MSG.DELETE.CACHE_EVENTS",          &[]),
    ("$JS.API.STREAM.MSG.DELETE.KV_CACHE_CONFIG",       &[]),
    ("$JS.API.STREAM.MSG.GET.CACHE_EVENTS",             &["operator"]),
    ("$JS.API.STREAM.SNAPSHOT.CACHE_EVENTS",            &[]),
    ("$JS.API.STREAM.RESTORE.CACHE_EVENTS",             &[]),
    ("$JS.API.STREAM.LEADER.STEPDOWN.CACHE_EVENTS",     &[]),
    ("$JS.API.DIRECT.GET.CACHE_EVENTS.x",               &["operator"]),
    ("$JS.API.DIRECT.GET.KV_CACHE_CONFIG.$KV.CACHE_CONFIG.live", &["memcache", "operator"]),
    ("$JS.API.DIRECT.GET.KV_CACHE_OWNERS.$KV.CACHE_OWNERS.0",    &["memcache", "operator"]),
    // Consumers: each its own. The operator may look through any.
    ("$JS.API.CONSUMER.NAMES.CACHE_EVENTS",             &["operator"]),
    ("$JS.API.CONSUMER.LIST.CACHE_EVENTS",              &["operator"]),
    ("$JS.API.CONSUMER.INFO.CACHE_EVENTS.recorder_windows",     &["gateway", "operator"]),
    ("$JS.API.CONSUMER.CREATE.CACHE_EVENTS",            &["operator"]),
    ("$JS.API.CONSUMER.CREATE.CACHE_EVENTS.other",      &["operator"]),
    ("$JS.API.CONSUMER.CREATE.CACHE_EVENTS.recorder_windows.cache.event.window.*", &["recorder", "operator"]),
    ("$JS.API.CONSUMER.DURABLE.CREATE.CACHE_EVENTS.recorder_windows", &[]),
    ("$JS.API.CONSUMER.MSG.NEXT.CACHE_EVENTS.recorder_windows", &["recorder", "operator"]),
    ("$JS.API.CONSUMER.MSG.NEXT.CACHE_EVENTS.other",    &["operator"]),
    ("$JS.API.CONSUMER.DELETE.CACHE_EVENTS.recorder_windows",   &["operator"]),
    ("$JS.API.CONSUMER.CREATE.KV_CACHE_CONFIG",         &["memcache", "operator"]),
    ("$JS.API.CONSUMER.CREATE.KV_CACHE_CONFIG.other.x", &["memcache", "operator"]),
    ("$JS.API.CONSUMER.CREATE.KV_CACHE_CONFIG.recorder_config",  &["operator"]),
    ("$JS.API.CONSUMER.CREATE.KV_CACHE_CONFIG.recorder_config.$KV.CACHE_CONFIG.live", &["recorder", "operator"]),
    ("$JS.API.CONSUMER.MSG.NEXT.KV_CACHE_CONFIG.recorder_config", &["recorder", "operator"]),
    ("$JS.API.CONSUMER.DELETE.KV_CACHE_CONFIG.other",   &["memcache", "operator"]),
    ("$JS.API.CONSUMER.DELETE.KV_CACHE_CONFIG.recorder_config",  &["operator"]),
    ("$JS.API.CONSUMER.CREATE.KV_CACHE_OWNERS",         &["operator"]),
    ("$JS.ACK.CACHE_EVENTS.recorder_windows.1.1.1.1.0", &["recorder", "operator"]),
    ("$JS.ACK.CACHE_EVENTS.other.1.1.1.1.0",            &["operator"]),
    ("$JS.ACK.KV_CACHE_CONFIG.recorder_config.1.1.1.1.0", &["recorder", "operator"]),
    ("$JS.FC.KV_CACHE_CONFIG.other.1",                  &["memcache", "operator"]),
    ("$JS.FC.CACHE_EVENTS.other.1",                     &["operator"]),
    ("$JS.API.META.LEADER.STEPDOWN",                    &[]),
    ("$JS.API.ACCOUNT.PURGE.x",                         &[]),
    // Services, the server itself, and anything else.
    ("$SRV.PING",                                       &["gateway", "operator"]),
    ("$SRV.PING.memcache",                              &["operator"]),
    ("$SRV.STATS.memcache",                             &["operator"]),
    ("$SRV.INFO.recorder.1",                            &["operator"]),
    ("$SYS.REQ.SERVER.PING",                            &[]),
    ("$SYS.REQ.ACCOUNT.PING.CONNZ",                     &[]),
    ("cache",                                           &[]),
    ("anything",                                        &[]),
];

/// A pattern, and who may subscribe to it.
#[rustfmt::skip]
const SUBSCRIBE: &[(&str, &[&str])] = &[
    (">",                           &[]),
    ("*",                           &[]),
    ("*.>",                         &[]),
    ("cache.>",                     &[]),
    ("cache.*",                     &["memcache"]),
    ("cache.*.>",                   &[]),
    ("cache.get.>",                 &["memcache"]),
    ("cache.get.cat",               &["memcache"]),
    ("cache.put.>",                 &["memcache"]),
    ("cache.invalidate.>",          &["memcache"]),
    ("cache.clear",                 &["memcache"]),
    ("cache.config.*",              &["memcache"]),
    ("cache.config.set",            &["memcache"]),
    ("cache.stats",                 &["memcache"]),
    ("cache.keys",                  &["memcache"]),
    ("cache.watch",                 &["memcache"]),
    ("cache.near.>",                &[]),
    ("cache.near.hits",             &["memcache"]),
    ("cache.near.drop.*",           &["gateway"]),
    ("cache.near.drop.1",           &["gateway"]),
    ("cache.event.>",               &["operator"]),
    ("cache.event.*",               &["operator"]),
    ("cache.event.window.*",        &["gateway", "operator"]),
    ("cache.event.window.w",        &["gateway", "operator"]),
    ("cache.event.configured.*",    &["gateway", "operator"]),
    ("cache.event.cleared.*",       &["gateway", "operator"]),
    ("cache.event.key.>",           &["gateway", "operator"]),
    ("cache.event.key.hit.cat",     &["gateway", "operator"]),
    ("stats.>",                     &[]),
    ("stats.*",                     &["recorder"]),
    ("stats.series",                &["recorder"]),
    ("stats.config_history",        &["recorder"]),
    ("_INBOX_gateway.>",            &["gateway"]),
    ("_INBOX_gateway.1.2",          &["gateway"]),
    ("_INBOX_memcache.>",           &["memcache"]),
    ("_INBOX_recorder.>",           &["recorder"]),
    ("_INBOX_operator.>",           &["operator"]),
    ("_INBOX.>",                    &[]),
    ("$KV.>",                       &[]),
    ("$KV.CACHE_CONFIG.>",          &[]),
    ("$KV.CACHE_OWNERS.>",          &[]),
    ("$JS.>",                       &[]),
    ("$JS.API.>",                   &[]),
    ("$JS.ACK.>",                   &[]),
    ("$JS.EVENT.>",                 &["operator"]),
    ("$JS.EVENT.ADVISORY.API",      &["operator"]),
    ("$SRV.>",                      &[]),
    ("$SRV.PING",                   &["gateway", "memcache", "recorder"]),
    ("$SRV.STATS.gateway",          &["gateway"]),
    ("$SRV.STATS.gateway.1",        &["gateway"]),
    ("$SRV.STATS.memcache",         &["memcache"]),
    ("$SRV.STATS.memcache.1",       &["memcache"]),
    ("$SRV.STATS.recorder",         &["recorder"]),
    ("$SRV.STATS.recorder.1",       &["recorder"]),
    ("$SYS.>",                      &[]),
    ("$SYS.ACCOUNT.>",              &[]),
    ("anything",                    &[]),
];

/// Not tried, because it depends on the server's version: 2.9 takes whoever may have `cache.*` for one who
/// may have `cache.>`. All that is under it is this role's own, or a question to everybody.
const UNTRIED: [(&str, &str); 5] = [
    ("memcache", "cache.>"),
    ("recorder", "stats.>"),
    ("gateway", "$SRV.>"),
    ("memcache", "$SRV.>"),
    ("recorder", "$SRV.>"),
];

/// A connection that speaks the protocol by hand, so that nothing stands between the server's words and
/// the test.
struct Speaker(BufReader<TcpStream>);

impl Speaker {
    /// Greets the server with these options, and returns its first word to them.
    async fn greet(server: &NatsServer, options: &str) -> (Self, String) {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let mut speaker = Self(BufReader::new(stream));
        assert!(speaker.line().await.starts_with("INFO "));
        speaker.say(&format!("CONNECT {options}\r\nPING\r\n")).await;
        let word = speaker.line().await;
        (speaker, word)
    }

    async fn say(&mut self, words: &str) {
        self.0.get_mut().write_all(words.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.unwrap().unwrap();
        line.trim_end().to_owned()
    }

    /// Says this, and returns the errors that the server has to say about it: it handles what comes on a
    /// connection in order, so that all of them come before the answer to a last PING.
    async fn errors_after(&mut self, words: &str) -> BTreeSet<String> {
        self.say(words).await;
        self.say("PING\r\n").await;
        let mut errors = BTreeSet::new();
        loop {
            match self.line().await {
                line if line == "PONG" => return errors,
                line if line == "PING" => self.say("PONG\r\n").await,
                line if line.starts_with("-ERR ") => {
                    errors.insert(line["-ERR ".len()..].trim_matches('\'').to_owned());
                }
                line => assert_eq!(line, "+OK", "nothing else was asked for"),
            }
        }
    }
}

fn login(user: &str, password: &str) -> String {
    format!(r#"{{"user":"{user}","pass":"{password}","verbose":false,"pedantic":false,"protocol":1}}"#)
}

#[tokio::test]
async fn each_role_may_do_what_it_needs_and_nothing_else() {
    let server = NatsServer::start().await;
    for role in ROLES {
        let (mut speaker, word) = Speaker::greet(&server, &login(role, server.password(role))).await;
        assert_eq!(word, "PONG", "{role}");
        for (subject, allowed) in PUBLISH {
            let errors = speaker.errors_after(&format!("PUB {subject} 0\r\n\r\n")).await;
            let refused = format!("Permissions Violation for Publish to \"{subject}\"");
            let expected = if allowed.contains(&role) { BTreeSet::new() } else { BTreeSet::from([refused]) };
            assert_eq!(errors, expected, "{role} publishes on {subject}");
        }
        for (number, (pattern, allowed)) in SUBSCRIBE.iter().enumerate() {
            if UNTRIED.contains(&(role, pattern)) {
                continue;
            }
            let errors = speaker.errors_after(&format!("SUB {pattern} {number}\r\nUNSUB {number}\r\n")).await;
            let refused = format!("Permissions Violation for Subscription to \"{pattern}\"");
            let expected = if allowed.contains(&role) { BTreeSet::new() } else { BTreeSet::from([refused]) };
            assert_eq!(errors, expected, "{role} subscribes to {pattern}");
            // A queue group is no way around.
            if !allowed.contains(&role) {
                let errors = speaker
                    .errors_after(&format!("SUB {pattern} group {number}\r\nUNSUB {number}\r\n"))
                    .await;
                assert_eq!(errors.len(), 1, "{role} subscribes to {pattern} in a group: {errors:?}");
            }
        }
    }
}

/// Whether `pattern` covers `subject`.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(one), Some(other)) if one == "*" || one == other => {}
            _ => return false,
        }
    }
}

#[test]
fn no_right_is_left_out_of_the_table() {
    let conf = std::fs::read_to_string(repository_root().join("nats.conf")).unwrap();
    let rights = conf.split_once("users: [").unwrap().1;
    let lines = rights.lines().filter(|line| !line.trim_start().starts_with('#'));
    let patterns: Vec<&str> = lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
    assert!(patterns.len() > 50, "{patterns:?}");
    for pattern in patterns {
        let tried = PUBLISH.iter().chain(SUBSCRIBE).any(|(subject, _)| covers(pattern, subject));
        assert!(tried, "{pattern} is in nats.conf, and nothing in this table tries it");
    }
}

#[tokio::test]
async fn nobody_enters_without_a_password_of_his_own() {
    let server = NatsServer::start().await;
    let mut strangers = vec![
        "{}".to_owned(),
        r#"{"verbose":false}"#.to_owned(),
        r#"{"auth_token":"operator"}"#.to_owned(),
        r#"{"user":"operator"}"#.to_owned(),
        r#"{"user":null,"pass":null}"#.to_owned(),
        login("", ""),
        login("operator", ""),
        login("admin", "admin"),
        login("operator", "$NATS_OPERATOR_PASSWORD"),
        login("Operator", server.password("operator")),
    ];
    for role in ROLES {
        strangers.push(login(role, &format!("{}x", server.password(role))));
        for other in ROLES.iter().filter(|other| **other != role) {
            strangers.push(login(role, server.password(other)));
        }
    }
    for stranger in strangers {
        let (mut speaker, word) = Speaker::greet(&server, &stranger).await;
        assert_eq!(word, "-ERR 'Authorization Violation'", "{stranger}");
        let mut rest = Vec::new();
        timeout(PATIENCE, speaker.0.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, b"", "{stranger} is shown out");
    }
    // Nor does anybody who does not greet at all.
    let mut speaker =
        Speaker(BufReader::new(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap()));
    assert!(speaker.line().await.starts_with("INFO "));
    speaker.say("SUB > 1\r\n").await;
    assert_eq!(speaker.line().await, "-ERR 'Authorization Violation'");
}

#[tokio::test]
async fn an_answer_goes_to_whoever_asked_and_once() {
    let server = NatsServer::start().await;
    for (service, subject) in [("memcache", "cache.stats"), ("recorder", "stats.series")] {
        let password = server.password(service);
        let (mut speaker, _) = Speaker::greet(&server, &login(service, password)).await;
        assert!(speaker.errors_after(&format!("SUB {subject} 1\r\n")).await.is_empty());
        let gateway = server.connect("gateway").await;
        let asked = tokio::spawn(async move { gateway.request(subject, "".into()).await });
        let message = speaker.line().await;
        let inbox = message.split(' ').nth(3).unwrap().to_owned();
        assert!(inbox.starts_with("_INBOX_gateway."), "{message}");
        assert_eq!(speaker.line().await, "");
        let answer = format!("PUB {inbox} 2\r\n{{}}\r\n");
        assert!(speaker.errors_after(&answer).await.is_empty());
        assert_eq!(asked.await.unwrap().unwrap().payload, "{}");
        assert_eq!(
            speaker.errors_after(&answer).await,
            BTreeSet::from([format!("Permissions Violation for Publish to \"{inbox}\"")])
        );
    }
}

/// The words of the server are one thing; here the library does what they allow.
#[tokio::test]
async fn the_operator_looks_into_the_stream_of_events() {
    let server = NatsServer::start().await;
    let memcache = async_nats::jetstream::new(server.connect("memcache").await);
    let stream = async_nats::jetstream::stream::Config {
        name: "CACHE_EVENTS".into(),
        subjects: vec!["cache.event.window.*".into()],
        ..Default::default()
    };
    memcache.create_stream(stream).await.unwrap();
    memcache.publish("cache.event.window.w", "{}".into()).await.unwrap().await.unwrap();
    let operator = async_nats::jetstream::new(server.connect("operator").await);
    let consumer = pull::Config { name: Some("look".into()), ..Default::default() };
    operator.create_consumer_on_stream(consumer, "CACHE_EVENTS").await.unwrap();
    operator.delete_consumer_from_stream("look", "CACHE_EVENTS").await.unwrap();
    let stream = operator.get_stream("CACHE_EVENTS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!((message.subject.as_str(), &*message.payload), ("cache.event.window.w", &b"{}"[..]));
}
