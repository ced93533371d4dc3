//! Whatever is asked, published or configured: one answer each, no row that is wrong, and the recorder lives on.

use futures_util::StreamExt as _;
use proptest::prelude::*;
use runtime::bus::RequestFailure;
use testkit::database::Account;
use testkit::{Database, NatsServer, any, eventually};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use wire::reply::{Code, ERROR_CODE_HEADER};
use wire::subject;

use crate::helpers::*;

const WINDOW_FIELDS: &[&str] = &[
    "worker",
    "incarnation",
    "sequence",
    "interval_start",
    "interval_ms",
    "cache_size",
    "capacity",
    "key_count",
    "request_count",
    "hit_count",
    "miss_count",
];

struct Stage {
    runtime: Runtime,
    nats: NatsServer,
    database: Database,
    recorder: Recorder,
}

impl Stage {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (nats, database, recorder) = runtime.block_on(async {
            let (nats, database) = (NatsServer::start().await, Database::empty().await);
            let recorder = Recorder::spawn(config(&nats, &database));
            Asker::connect(&nats).await;
            (nats, database, recorder)
        });
        Self { runtime, nats, database, recorder }
    }
}

#[test]
fn any_question_has_exactly_one_answer() {
    let Stage { runtime, nats, database: _database, recorder } = Stage::new();
    let client = runtime.block_on(nats.connect("operator"));
    let inbox = client.new_inbox();
    let mut answers = runtime.block_on(client.subscribe(format!("{inbox}.*"))).unwrap();
    let answers = tokio::sync::Mutex::new(&mut answers);
    let count = std::cell::Cell::new(0_usize);
    // One after the other, so an answer too many would stand before the next one.
    let ask = async |subject: String, payload: Vec<u8>| {
        count.set(count.get() + 1);
        let reply = format!("{inbox}.{}", count.get());
        client.publish_with_reply(subject, reply.clone(), payload.into()).await.unwrap();
        let answer = timeout(SOON, answers.lock().await.next()).await;
        let answer = answer.map_err(|_| TestCaseError::fail("there is no answer"))?.expect("the bus stands");
        prop_assert_eq!(answer.subject.as_str(), reply);
        prop_assert_eq!(answer.status, None, "nobody serves this");
        let code = answer.headers.as_ref().and_then(|headers| headers.get(ERROR_CODE_HEADER));
        let code = code.map(|code| Code::from_number(code.as_str().parse().expect("a number")));
        prop_assert!(matches!(code, None | Some(Code::BadRequest | Code::NotFound)), "{:?}", code);
        Ok(())
    };
    let question = prop_oneof![
        3 => (Just(subject::SERIES.to_owned()), any::json(&["range", "step"])),
        3 => (Just(subject::CONFIG_HISTORY.to_owned()), any::json(&["range", "limit"])),
        1 => ("stats\\.[a-z%$é-]{1,10}", any::json(&["range"])),
    ];
    any::runner(96).run(&question, |(subject, payload)| runtime.block_on(ask(subject, payload))).unwrap();
    for subject in [subject::SERIES, subject::CONFIG_HISTORY, "stats.x"] {
        runtime.block_on(ask(subject.to_owned(), Vec::new())).unwrap();
    }
    runtime.block_on(recorder.stop()).unwrap();
}

/// Windows that are right but for what their fields say.
fn any_window() -> impl Strategy<Value = Vec<u8>> {
    let number =
        prop_oneof![Just(0), Just(u64::MAX), Just(i64::MAX as u64), proptest::arbitrary::any::<u64>()];
    let recent = (0..300 * 86_400_i64).prop_map(|ago_s| {
        let time = OffsetDateTime::now_utc() - time::Duration::seconds(ago_s);
        time.format(&Rfc3339).expect("a time of this year")
    });
    let time = prop_oneof![
        3 => recent,
        1 => Just("9999-12-31T23:59:59.999999999Z".to_owned()),
        1 => Just("1970-01-01T00:00:00Z".to_owned()),
        1 => "(19|20)[0-9]{2}-0[1-9]-1[0-9]T[01][0-9]:00:00(\\.[0-9]{1,9})?(Z|[+-]1[0-9]:30)",
    ];
    let whole = ("\\PC{0,70}", "[a-zé ]{0,34}", number.clone(), time, number.clone(), number).prop_map(
        |(worker, incarnation, sequence, start, interval_ms, count)| {
            let window = serde_json::json!({
                "worker": worker, "incarnation": incarnation, "sequence": sequence, "interval_start": start,
                "interval_ms": interval_ms, "cache_size": count, "capacity": count, "key_count": count,
                "request_count": count, "evicted_bytes": count,
            });
            window.to_string().into_bytes()
        },
    );
    prop_oneof![3 => whole.clone(), 1 => any::nearly(whole, 1..4), 2 => any::json(WINDOW_FIELDS)]
}

#[test]
fn any_window_and_any_entry_leave_those_behind_them_their_rows() {
    let Stage { runtime, nats, database, recorder } = Stage::new();
    let worker = runtime.block_on(Worker::connect(&nats));
    let asker = runtime.block_on(Asker::connect(&nats));
    let sequence = std::cell::Cell::new(0);
    let entry = any::json(&["capacity_mb", "policy", "generation", "changed_by", "changed_at"]);
    let ran = any::runner(24).run(&(any_window(), entry), |(bad_window, bad_entry)| {
        runtime.block_on(async {
            sequence.set(sequence.get() + 1);
            let id = format!("any-{}", sequence.get());
            worker.publish_bytes("cache.event.window.memcache-1", &id, &bad_window).await;
            worker.publish(&window("proper", sequence.get())).await;
            worker.write_entry(&bad_entry).await;
            let revision = worker.configure(64, 0, "proper").await;
            wait_for_windows(&database, "proper", sequence.get()).await;
            eventually("the proper revision is a row", SOON, async || {
                let row = sqlx::query_scalar::<_, u64>("SELECT MAX(revision) FROM cache_properties");
                row.fetch_one(&mut database.connect(Account::Admin).await).await.ok() == Some(revision)
            })
            .await;
            // Whatever was stored can be read, also added up.
            for (subject, question) in [
                (subject::SERIES, r#"{"range":"366d","step":"1d"}"#),
                (subject::CONFIG_HISTORY, r#"{"limit":1000}"#),
            ] {
                let answer = asker.try_ask(subject, question).await;
                let refused = matches!(&answer, Err(RequestFailure::Refused(_)));
                prop_assert!(answer.is_ok(), "{} {:?} refused: {}", subject, answer, refused);
            }
            Ok(())
        })
    });
    ran.unwrap();
    runtime.block_on(recorder.stop()).unwrap();
}
