//! Whatever a service answers is read or refused with a reason, and the connection goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::StreamExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use runtime::args::NatsArgs;
use runtime::bus::{Bus, Refused, RequestFailure};
use runtime::service::parse_json;
use testkit::{NatsServer, any};
use wire::inspect::{ClearRequest, KeysRequest, WatchRequest};
use wire::reply::{Code, ERROR_CODE_HEADER, ERROR_HEADER};
use wire::stats::{HistoryRequest, SeriesRequest};
use wire::{meta, subject};

const PATIENCE: Duration = Duration::from_secs(20);

fn any_header() -> impl Strategy<Value = (String, String)> {
    let known = select(vec![ERROR_CODE_HEADER, ERROR_HEADER, meta::HEADER]).prop_map(str::to_owned);
    let name = prop_oneof![6 => known, 1 => "[!#-9;-~]{1,12}"];
    let value = prop_oneof![
        "[0-9]{3}",
        "-?[0-9]{0,20}",
        "(type=image/png )?tag=[0-9a-f]{60,66} lease=[0-9a-f]{0,33}",
        "[^\\r\\n]{0,40}",
    ];
    (name, value)
}

#[test]
fn any_answer_is_a_reply_or_a_failure_with_a_reason() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, bus) = runtime.block_on(async {
        let server = NatsServer::start().await;
        let args = NatsArgs { nats_url: None, nats_port: server.port() };
        let bus = Bus::connect(
            &args,
            runtime::bus::User::asking("gateway"),
            server.password("gateway"),
            64,
            PATIENCE,
        )
        .await
        .unwrap();
        (server, bus)
    });
    let service = runtime.block_on(server.connect("memcache"));
    let questions = runtime.block_on(async {
        let questions = service.subscribe(subject::STATS).await.unwrap();
        // Once the server has answered, it knows of the subscription.
        service.flush().await.unwrap();
        testkit::eventually("somebody serves", PATIENCE, async || {
            let asked =
                bus.request(subject::STATS.into(), None, Bytes::new(), Duration::from_millis(100)).await;
            !matches!(asked, Err(RequestFailure::NoResponders(_)))
        })
        .await;
        questions
    });
    let questions = RefCell::new(questions);
    let answer = (vec(any_header(), 0..4), vec(any::<u8>(), 0..100));
    let ran = any::runner(128).run(&answer, |(headers, body)| {
        let mut questions = questions.borrow_mut();
        runtime.block_on(async {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
            }
            let answering = async {
                // The first ones are what asked whether somebody serves.
                let question =
                    questions.by_ref().filter(|message| std::future::ready(message.payload == "now"));
                let reply = Box::pin(question).next().await.and_then(|message| message.reply).unwrap();
                service.publish_with_headers(reply, map.clone(), body.clone().into()).await.unwrap();
            };
            let asking = bus.request(subject::STATS.into(), None, "now".into(), PATIENCE);
            let (answered, ()) = tokio::join!(asking, answering);
            let is_refusal = map.get(ERROR_CODE_HEADER).is_some();
            match answered {
                Ok(reply) => prop_assert!(!is_refusal && reply.payload == body),
                Err(RequestFailure::Refused(refused)) => {
                    let Refused { refusal, .. } = *refused;
                    prop_assert!(is_refusal);
                    prop_assert_eq!(Code::from_number(refusal.code.number()), refusal.code);
                }
                Err(RequestFailure::Other(reason)) => prop_assert!(reason.len() > 10, "{}", reason),
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
            Ok(())
        })
    });
    ran.unwrap();
    assert_eq!(bus.connection_count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_payload_is_a_request_or_a_refusal_that_shows_how_it_looks(
        payload in any::json(&["range", "step", "limit", "prefix", "after", "sort", "seconds", "kinds", "by"]),
    ) {
        const EXAMPLE: &str = r#"{"example":1}"#;
        let refusals = [
            parse_json::<ClearRequest>(&payload, EXAMPLE).err(),
            parse_json::<HistoryRequest>(&payload, EXAMPLE).err(),
            parse_json::<KeysRequest>(&payload, EXAMPLE).err(),
            parse_json::<SeriesRequest>(&payload, EXAMPLE).err(),
            parse_json::<WatchRequest>(&payload, EXAMPLE).err(),
        ];
        for refusal in refusals.into_iter().flatten() {
            prop_assert_eq!(refusal.code, Code::BadRequest);
            prop_assert!(refusal.message.contains(EXAMPLE));
            prop_assert!(refusal.message.len() < 1000, "{}", refusal.message);
        }
    }
}
