//! What each user of `nats.conf` may do: every subject below is tried by every role on a real server,
//! and what the server says is compared with the table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use testkit::{NatsServer, repository_root};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// All users: the connections of the services that ask and answer, those for what they do by themselves, a person, and
/// the one that makes streams and consumers.
const ROLES: [&str; 8] =
    ["gateway", "memcache", "recorder", "gateway_own", "memcache_own", "recorder_own", "operator", "setup"];
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
    ("cache.near.drop.1",                               &["memcache_own"]),
    ("cache.near.drop.1.2",                             &[]),
    // What the worker says to itself.
    ("cache.proof.1",                                   &["memcache_own"]),
    // What the recorder is asked.
    ("stats.series",                                    &["gateway", "operator"]),
    ("stats.config_history",                            &["gateway", "operator"]),
    ("stats.nonsense",                                  &["operator"]),
    ("stats.series.more",                               &[]),
    // What the worker says by itself. Nobody else may invent a figure.
    ("cache.event.window.memcache-1",                   &["memcache_own"]),
    ("cache.event.configured.memcache-1",               &["memcache_own"]),
    ("cache.event.cleared.memcache-1",                  &["memcache_own"]),
    ("cache.event.key.hit.cat",                         &["memcache_own"]),
    // Answers: to gateways, and to those who ask from other accounts. One's own inbox is for whoever proves a
    // connection so.
    ("_R_.1.2",                                         &["gateway", "memcache", "recorder"]),
    ("_INBOX_gateway.1.2",                              &["memcache", "recorder"]),
    ("_INBOX_memcache.1.2",                             &[]),
    ("_INBOX_recorder.1.2",                             &[]),
    ("_INBOX_gateway_own.1.2",                          &[]),
    ("_INBOX_memcache_own.1.2",                         &[]),
    ("_INBOX_recorder_own.1.2",                         &["recorder_own"]),
    ("_INBOX_operator.1.2",                             &[]),
    ("_INBOX_setup.1.2",                                &[]),
    ("_INBOX.1.2",                                      &[]),
    // The buckets. What is in force changes by cache.config.set alone; a gateway may end a claim that has run out.
    ("$JS.STORE.API.$KV.CACHE_CONFIG.live",             &["memcache_own"]),
    ("$JS.STORE.API.$KV.CACHE_CONFIG.other",            &[]),
    ("$JS.STORE.API.$KV.CACHE_OWNERS.0",                &["gateway_own", "memcache_own"]),
    ("$JS.STORE.API.$KV.CACHE_OWNERS.1",                &[]),
    ("$KV.CACHE_CONFIG.live",                           &[]),
    ("$KV.CACHE_OWNERS.0",                              &[]),
    ("$KV.OTHER.x",                                     &[]),
    // Streams.
    ("$JS.STORE.API.INFO",                              &["operator"]),
    ("$JS.STORE.API.STREAM.NAMES",                      &["operator"]),
    ("$JS.STORE.API.STREAM.LIST",                       &["operator"]),
    ("$JS.STORE.API.STREAM.INFO.CACHE_EVENTS",          &["recorder_own", "operator"]),
    ("$JS.STORE.API.STREAM.INFO.KV_CACHE_CONFIG",       &["memcache_own", "recorder_own", "setup", "operator"]),
    ("$JS.STORE.API.STREAM.INFO.KV_CACHE_OWNERS",       &["gateway_own", "memcache_own", "operator"]),
    ("$JS.STORE.API.STREAM.INFO.OTHER",                 &["operator"]),
    ("$JS.STORE.API.STREAM.CREATE.CACHE_EVENTS",        &["memcache_own", "setup"]),
    ("$JS.STORE.API.STREAM.CREATE.KV_CACHE_CONFIG",     &["memcache_own", "setup"]),
    ("$JS.STORE.API.STREAM.CREATE.KV_CACHE_OWNERS",     &["memcache_own"]),
    ("$JS.STORE.API.STREAM.CREATE.OTHER",               &[]),
    ("$JS.STORE.API.STREAM.UPDATE.CACHE_EVENTS",        &[]),
    ("$JS.STORE.API.STREAM.DELETE.CACHE_EVENTS",        &[]),
    ("$JS.STORE.API.STREAM.PURGE.KV_CACHE_CONFIG",      &[]),
    ("$JS.STORE.API.STREAM.MSG.DELETE.CACHE_EVENTS",    &[]),
    ("$JS.STORE.API.STREAM.MSG.GET.CACHE_EVENTS",       &["operator"]),
    ("$JS.STORE.API.STREAM.MSG.GET.KV_CACHE_CONFIG",    &["memcache_own", "operator"]),
    ("$JS.STORE.API.STREAM.MSG.GET.KV_CACHE_OWNERS",    &["gateway_own", "memcache_own", "operator"]),
    ("$JS.STORE.API.STREAM.SNAPSHOT.CACHE_EVENTS",      &[]),
    ("$JS.STORE.API.DIRECT.GET.CACHE_EVENTS.x",         &["operator"]),
    // By JetStream's own names there is nothing to be had, in no account.
    ("$JS.API.INFO",                                    &[]),
    ("$JS.API.STREAM.INFO.CACHE_EVENTS",                &[]),
    ("$JS.API.STREAM.CREATE.OTHER",                     &[]),
    ("$JS.API.STREAM.UPDATE.CACHE_EVENTS",              &[]),
    ("$JS.API.STREAM.DELETE.CACHE_EVENTS",              &[]),
    ("$JS.API.STREAM.DELETE.KV_CACHE_CONFIG",           &[]),
    ("$JS.API.STREAM.DELETE.KV_CACHE_OWNERS",           &[]),
    ("$JS.API.STREAM.PURGE.CACHE_EVENTS",               &[]),
    ("$JS.API.STREAM.PURGE.KV_CACHE_CONFIG",            &[]),
    ("$JS.API.STREAM.PURGE.KV_CACHE_OWNERS",            &[]),
    ("$JS.API.STREAM.MSG.DELETE.CACHE_EVENTS",          &[]),
    ("$JS.API.STREAM.SNAPSHOT.CACHE_EVENTS",            &[]),
    ("$JS.API.STREAM.RESTORE.CACHE_EVENTS",             &[]),
    ("$JS.API.STREAM.LEADER.STEPDOWN.CACHE_EVENTS",     &[]),
    ("$JS.API.CONSUMER.CREATE.CACHE_EVENTS",            &[]),
    ("$JS.API.CONSUMER.CREATE.CACHE_EVENTS.other",      &[]),
    ("$JS.API.CONSUMER.DELETE.CACHE_EVENTS.recorder_windows",    &[]),
    ("$JS.API.META.LEADER.STEPDOWN",                    &[]),
    ("$JS.API.ACCOUNT.PURGE.x",                         &[]),
    // Consumers: those of the recorder, and no others. A consumer delivers wherever its maker says. `setup` may make these
    // two, also as push consumers, and delete them; its password reaches what a message of theirs can do.
    ("$JS.STORE.API.CONSUMER.NAMES.CACHE_EVENTS",       &["operator"]),
    ("$JS.STORE.API.CONSUMER.LIST.CACHE_EVENTS",        &["operator"]),
    ("$JS.STORE.API.CONSUMER.INFO.CACHE_EVENTS.recorder_windows",   &["gateway_own", "recorder_own", "operator"]),
    ("$JS.STORE.API.CONSUMER.INFO.KV_CACHE_CONFIG.recorder_config", &["recorder_own", "operator"]),
    ("$JS.STORE.API.CONSUMER.CREATE.CACHE_EVENTS",      &[]),
    ("$JS.STORE.API.CONSUMER.CREATE.CACHE_EVENTS.other", &[]),
    ("$JS.STORE.API.CONSUMER.DURABLE.CREATE.CACHE_EVENTS.recorder_windows",   &["setup"]),
    ("$JS.STORE.API.CONSUMER.DURABLE.CREATE.CACHE_EVENTS.other",              &[]),
    ("$JS.STORE.API.CONSUMER.DURABLE.CREATE.KV_CACHE_CONFIG.recorder_config", &["setup"]),
    ("$JS.STORE.API.CONSUMER.DURABLE.CREATE.KV_CACHE_CONFIG.other",           &[]),
    ("$JS.STORE.API.CONSUMER.MSG.NEXT.CACHE_EVENTS.recorder_windows",         &["recorder_own"]),
    ("$JS.STORE.API.CONSUMER.MSG.NEXT.CACHE_EVENTS.other",                    &[]),
    ("$JS.STORE.API.CONSUMER.MSG.NEXT.KV_CACHE_CONFIG.recorder_config",       &["recorder_own"]),
    ("$JS.STORE.API.CONSUMER.DELETE.CACHE_EVENTS.recorder_windows",           &["setup"]),
    ("$JS.STORE.API.CONSUMER.DELETE.CACHE_EVENTS.other",                      &[]),
    ("$JS.STORE.API.CONSUMER.DELETE.KV_CACHE_CONFIG.recorder_config",         &["setup"]),
    ("$JS.ACK.CACHE_EVENTS.recorder_windows.1.1.1.1.0", &["recorder_own"]),
    ("$JS.ACK.CACHE_EVENTS.other.1.1.1.1.0",            &[]),
    ("$JS.ACK.KV_CACHE_CONFIG.recorder_config.1.1.1.1.0", &["recorder_own"]),
    ("$JS.FC.KV_CACHE_CONFIG.other.1",                  &[]),
    // Services, the server itself, and anything else.
    ("$SRV.PING",                                       &["gateway_own", "operator"]),
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
    ("cache.proof.*",               &["memcache"]),
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
    ("_R_.>",                       &[]),
    ("_INBOX_gateway.>",            &["gateway"]),
    ("_INBOX_gateway.1.2",          &["gateway"]),
    ("_INBOX_memcache.>",           &["memcache"]),
    ("_INBOX_recorder.>",           &["recorder"]),
    ("_INBOX_gateway_own.>",        &["gateway_own"]),
    ("_INBOX_memcache_own.>",       &["memcache_own"]),
    ("_INBOX_recorder_own.>",       &["recorder_own"]),
    ("_INBOX_operator.>",           &["operator"]),
    ("_INBOX_setup.>",              &["setup"]),
    ("_INBOX.>",                    &[]),
    ("$KV.>",                       &[]),
    ("$KV.CACHE_CONFIG.>",          &[]),
    ("$KV.CACHE_OWNERS.>",          &[]),
    ("$JS.>",                       &[]),
    ("$JS.API.>",                   &[]),
    ("$JS.STORE.API.>",             &[]),
    ("$JS.ACK.>",                   &[]),
    ("$JS.EVENT.>",                 &[]),
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
        let mut greeting = String::new();
        speaker.0.read_line(&mut greeting).await.unwrap();
        assert!(greeting.starts_with("INFO "));
        speaker.say(&format!("CONNECT {options}\r\nPING\r\n")).await;
        let word = speaker.line().await;
        (speaker, word)
    }

    /// The next line, unless the server has left.
    async fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    async fn say(&mut self, words: &str) {
        self.0.get_mut().write_all(words.as_bytes()).await.unwrap();
    }

    /// The next line, but for what newer servers say of themselves once more after the greeting.
    async fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            timeout(PATIENCE, self.0.read_line(&mut line)).await.unwrap().unwrap();
            if !line.starts_with("INFO ") {
                return line.trim_end().to_owned();
            }
        }
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
    let rights = conf.split_once("accounts {").unwrap().1;
    // What a user may do stands under permissions; exports and imports only say which way it goes.
    let lines = rights.lines().filter(|line| !line.trim_start().starts_with(['#', '{']));
    let patterns: Vec<&str> = lines.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
    assert!(patterns.len() > 80, "{}: {patterns:?}", patterns.len());
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
        let is_same_service = |other: &str| other.trim_end_matches("_own") == role.trim_end_matches("_own");
        for other in ROLES.iter().filter(|other| !is_same_service(other)) {
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
    assert!(speaker.next_line().await.unwrap().starts_with("INFO "));
    speaker.say("SUB > 1\r\n").await;
    assert_eq!(speaker.line().await, "-ERR 'Authorization Violation'");
}

const STREAMS: [&str; 3] = ["CACHE_EVENTS", "KV_CACHE_CONFIG", "KV_CACHE_OWNERS"];
const CONSUMERS: [(&str, &str); 2] =
    [("CACHE_EVENTS", "recorder_windows"), ("KV_CACHE_CONFIG", "recorder_config")];

/// The streams and consumers as the services make them.
async fn make_streams(server: &NatsServer) {
    let memcache = server.jetstream("memcache_own").await;
    let setup = server.jetstream("setup").await;
    let streams: [(&str, &[&str]); 3] = [
        ("CACHE_EVENTS", &["cache.event.window.*", "cache.event.configured.*", "cache.event.cleared.*"]),
        ("KV_CACHE_CONFIG", &["$KV.CACHE_CONFIG.>"]),
        ("KV_CACHE_OWNERS", &["$KV.CACHE_OWNERS.>"]),
    ];
    for (name, subjects) in streams {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        let config = stream::Config { name: name.into(), subjects, ..stream::Config::default() };
        memcache.create_stream(config).await.unwrap();
    }
    for (stream, consumer) in CONSUMERS {
        let wanted = consumer_request(stream, consumer, serde_json::json!({}));
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
        let made: serde_json::Value = setup.request(subject, &wanted).await.unwrap();
        assert!(made.get("error").is_none(), "{made}");
    }
}

fn consumer_request(stream: &str, consumer: &str, more: serde_json::Value) -> serde_json::Value {
    let mut config = serde_json::json!({
        "durable_name": consumer, "ack_policy": "explicit", "deliver_policy": "all", "replay_policy": "instant",
    });
    let fields = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(fields);
    serde_json::json!({ "stream_name": stream, "config": config })
}

/// Answers whatever comes, to whatever reply subject it names, as a service does that does not look at it.
async fn answer_all(server: &NatsServer, role: &str, patterns: &[&str]) -> JoinHandle<()> {
    let (mut speaker, _) = Speaker::greet(server, &login(role, server.password(role))).await;
    for (number, pattern) in patterns.iter().enumerate() {
        assert!(speaker.errors_after(&format!("SUB {pattern} {number}\r\n")).await.is_empty());
    }
    tokio::spawn(async move {
        loop {
            let Some(line) = speaker.next_line().await else { return };
            let words: Vec<&str> = line.split(' ').collect();
            let (reply, size) = match words[..] {
                ["MSG", _, _, size] | ["HMSG", _, _, _, size] => (None, size),
                ["MSG", _, _, reply, size] | ["HMSG", _, _, reply, _, size] => (Some(reply.to_owned()), size),
                ["PING"] => {
                    speaker.say("PONG\r\n").await;
                    continue;
                }
                _ => continue,
            };
            let mut body = vec![0; size.parse::<usize>().unwrap() + 2];
            if speaker.0.read_exact(&mut body).await.is_err() {
                return;
            }
            if let Some(reply) = reply {
                speaker.say(&format!("PUB {reply} 2\r\n{{}}\r\n")).await;
            }
        }
    })
}

/// The name under which the other accounts have a subject of JetStream's.
fn name_of_import(subject: &str) -> String {
    let api = subject.strip_prefix("$JS.API.");
    format!("$JS.STORE.API.{}", api.unwrap_or(subject))
}

/// The payload of the later questions, by which a witness knows them.
const LAST_WORD: &str = "later";

/// A user and a question for each of those who answer.
const LATER: [(&str, &str); 4] = [
    ("gateway", "cache.stats"),
    ("gateway", "stats.series"),
    ("memcache_own", "cache.near.drop.1"),
    ("administrator", "$JS.API.INFO"),
];

/// Everything that is said in one account.
async fn witness(server: &NatsServer, account: &'static str) -> (&'static str, async_nats::Subscriber) {
    let client = server.connect(&testkit::witness_of(account)).await;
    let heard = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    (account, heard)
}

/// Whoever asks chooses the reply subject. So every role asks on every subject where it may publish, for an answer on each
/// where it may not; services that answer everything stand by; and in no account but the asker's own is anything heard there.
#[tokio::test(flavor = "multi_thread")]
async fn no_role_reaches_by_a_reply_what_it_may_not_publish() {
    let (setup, others): (Vec<_>, Vec<_>) = ROLES.into_iter().partition(|role| *role == "setup");
    // On a server of its own: the consumers that it deletes answer each pull that waits, whoever asked.
    let count = ask_with_foreign_replies(&others).await + ask_with_foreign_replies(&setup).await;
    assert!(count > 10_000, "{count} cases");
    println!("{count} requests with a reply subject that their asker may not publish, none answered there");
}

async fn ask_with_foreign_replies(roles: &[&'static str]) -> usize {
    let server = NatsServer::start().await;
    make_streams(&server).await;
    let _services = [
        answer_all(
            &server,
            "memcache",
            &[
                "cache.get.>",
                "cache.put.>",
                "cache.invalidate.>",
                "cache.*",
                "cache.config.*",
                "cache.near.hits",
                "$SRV.*",
                "$SRV.*.memcache",
            ],
        )
        .await,
        answer_all(&server, "recorder", &["stats.*", "$SRV.*", "$SRV.*.recorder", "$SRV.*.recorder.*"]).await,
        answer_all(&server, "gateway", &["cache.near.drop.*", "$SRV.*"]).await,
    ];
    let mut witnesses = Vec::new();
    for account in testkit::ACCOUNTS {
        witnesses.push(witness(&server, account).await);
    }
    let count = AtomicUsize::new(0);
    for &role in roles {
        let (mut speaker, _) = Speaker::greet(&server, &login(role, server.password(role))).await;
        let account = testkit::account_of(role);
        for (subject, allowed) in PUBLISH.iter().filter(|(_, allowed)| allowed.contains(&role)) {
            let forbidden = |(_, allowed): &&(&str, &[&str])| !allowed.contains(&role);
            // Its own inbox is where answers are to go.
            let own = format!("_INBOX_{role}.");
            let replies = PUBLISH.iter().filter(forbidden).filter(|(reply, _)| !reply.starts_with(&own));
            let mut said = String::new();
            for (reply, _) in replies {
                // JetStream answers a request without a body, with one that can be read, and with one that can't.
                for body in ["", "{}", r#"{"last_by_subj":"$KV.CACHE_OWNERS.0"}"#] {
                    said.push_str(&format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            let errors = speaker.errors_after(&said).await;
            let at_once = |error: &String| error.contains("with Reply of");
            assert!(errors.iter().all(at_once), "{role} asks on {subject}: {errors:?}");
            assert!(!allowed.is_empty());
        }
        // Each service, and JetStream, answers in order: a later answer proves that all earlier ones are out.
        for (user, subject) in LATER {
            server.connect(user).await.request(subject, LAST_WORD.into()).await.unwrap();
        }
        for (heard_in, witness) in &mut witnesses {
            let marker = format!("test.marker.{role}");
            let client = server.connect(&testkit::witness_of(heard_in)).await;
            client.publish(marker.clone(), "".into()).await.unwrap();
            client.flush().await.unwrap();
            loop {
                let message = timeout(PATIENCE, witness.next()).await.unwrap().unwrap();
                if message.subject.as_str() == marker {
                    break;
                }
                // JetStream delivers a message to an inbox under the subject by which it came.
                if message.reply.is_some_and(|reply| reply.starts_with("$JS.ACK.")) {
                    continue;
                }
                if message.payload == LAST_WORD {
                    continue;
                }
                let subject = message.subject.as_str();
                let names = [subject.to_owned(), name_of_import(subject)];
                let known: Vec<_> =
                    PUBLISH.iter().filter(|(subject, _)| names.contains(&(*subject).into())).collect();
                let is_foreign =
                    !known.is_empty() && !known.iter().any(|(_, allowed)| allowed.contains(&role));
                // In the asker's own account, where nobody else is, a name is only a name.
                let is_private = *heard_in == account && account != "CACHE";
                assert!(!is_foreign || is_private, "{role} has reached {} in {heard_in}", message.subject);
            }
        }
    }
    // And nothing of what JetStream keeps is gone.
    let administrator = server.jetstream("administrator").await;
    for stream in STREAMS {
        let stream = administrator.get_stream(stream).await.unwrap();
        assert_eq!(stream.cached_info().state.first_sequence.max(1), 1, "nothing was purged");
    }
    count.into_inner()
}

/// What JetStream keeps: the configuration of each stream and of each consumer, and when it was made.
async fn kept(administrator: &jetstream::Context) -> Vec<serde_json::Value> {
    let streams = STREAMS.map(|stream| format!("STREAM.INFO.{stream}"));
    let consumers = CONSUMERS.map(|(stream, consumer)| format!("CONSUMER.INFO.{stream}.{consumer}"));
    let mut kept = Vec::new();
    for subject in streams.into_iter().chain(consumers) {
        let info: serde_json::Value = administrator.request(subject, &serde_json::json!({})).await.unwrap();
        assert!(info["config"].is_object(), "{info}");
        kept.push(serde_json::json!([info["config"], info["created"], info["state"]["first_seq"]]));
    }
    for stream in STREAMS {
        let names: serde_json::Value =
            administrator.request(format!("CONSUMER.NAMES.{stream}"), &serde_json::json!({})).await.unwrap();
        kept.push(names["consumers"].clone());
    }
    kept
}

/// A consumer delivers wherever its maker says, and one that is deleted, or is no longer used for its
/// `inactive_threshold`, can be made anew as a push consumer. So no role but `setup` makes, changes or deletes one; nor a
/// stream, but that the worker makes its three where they are missing.
#[tokio::test]
async fn no_role_makes_changes_or_deletes_a_consumer_or_a_stream() {
    let server = NatsServer::start().await;
    make_streams(&server).await;
    let administrator = server.jetstream("administrator").await;
    let before = kept(&administrator).await;
    let mut requests = Vec::new();
    for (stream, consumer) in CONSUMERS {
        for more in [
            serde_json::json!({ "inactive_threshold": 1_000_000 }),
            serde_json::json!({ "deliver_subject": "$JS.API.STREAM.PURGE.CACHE_EVENTS" }),
        ] {
            let request = consumer_request(stream, consumer, more).to_string();
            for subject in [
                format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}"),
                format!("CONSUMER.CREATE.{stream}.{consumer}"),
                format!("CONSUMER.CREATE.{stream}"),
            ] {
                requests.push((subject, request.clone()));
            }
        }
        for verb in ["DELETE", "PAUSE", "UNPIN", "RESET", "LEADER.STEPDOWN"] {
            requests.push((format!("CONSUMER.{verb}.{stream}.{consumer}"), String::new()));
        }
        let other = consumer_request(stream, "other", serde_json::json!({ "deliver_subject": "x" }));
        requests.push((format!("CONSUMER.DURABLE.CREATE.{stream}.other"), other.to_string()));
    }
    for stream in STREAMS {
        let config = serde_json::json!({ "name": stream, "subjects": ["anything"], "max_msgs": 1 });
        for verb in ["CREATE", "UPDATE"] {
            requests.push((format!("STREAM.{verb}.{stream}"), config.to_string()));
        }
        for verb in ["DELETE", "PURGE", "RESTORE", "SNAPSHOT", "LEADER.STEPDOWN"] {
            requests.push((format!("STREAM.{verb}.{stream}"), String::new()));
        }
    }
    for role in ROLES.into_iter().filter(|role| *role != "setup") {
        let (mut speaker, _) = Speaker::greet(&server, &login(role, server.password(role))).await;
        for (subject, body) in &requests {
            for api in ["$JS.STORE.API", "$JS.API"] {
                let subject = format!("{api}.{subject}");
                let errors =
                    speaker.errors_after(&format!("PUB {subject} {}\r\n{body}\r\n", body.len())).await;
                let may_try = role == "memcache_own" && subject.starts_with("$JS.STORE.API.STREAM.CREATE.");
                let refused = format!("Permissions Violation for Publish to \"{subject}\"");
                let expected = if may_try { BTreeSet::new() } else { BTreeSet::from([refused]) };
                assert_eq!(errors, expected, "{role} publishes on {subject}");
            }
        }
        assert_eq!(kept(&administrator).await, before, "{role} has changed something");
    }
}

#[tokio::test]
async fn an_answer_goes_to_whoever_asked() {
    let server = NatsServer::start().await;
    for (service, subject) in [("memcache", "cache.stats"), ("recorder", "stats.series")] {
        let _service = answer_all(&server, service, &[subject]).await;
        for asker in ["gateway", "operator"] {
            let asker = server.connect(asker).await;
            assert_eq!(asker.request(subject, "".into()).await.unwrap().payload, "{}");
        }
    }
}

/// The words of the server are one thing; here the library does what they allow.
#[tokio::test]
async fn the_operator_looks_into_the_stream_of_events() {
    let server = NatsServer::start().await;
    make_streams(&server).await;
    let memcache = server.jetstream("memcache_own").await;
    memcache.publish("cache.event.window.w", "{}".into()).await.unwrap().await.unwrap();
    let operator = server.jetstream("operator").await;
    let stream = operator.get_stream("CACHE_EVENTS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!((message.subject.as_str(), &*message.payload), ("cache.event.window.w", &b"{}"[..]));
}
