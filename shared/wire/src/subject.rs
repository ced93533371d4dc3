//! Every subject, stream and bucket name.

use crate::event::KeyEventKind;
use crate::item::{Item, Variant};
use crate::key::Key;
use crate::near::Holder;
use crate::words::{one_of, shown};

/// The name of the worker's NATS service.
pub const MEMCACHE_SERVICE: &str = "memcache";
/// The name of the recorder's NATS service.
pub const RECORDER_SERVICE: &str = "recorder";

/// The name of the gateways' NATS service. It has no endpoints, and only shows that they are there.
pub const GATEWAY_SERVICE: &str = "gateway";
/// Asks every service whether it is there.
pub const PING: &str = "$SRV.PING";
/// The name under which `nats.conf` imports JetStream's API into the accounts of the services: `$JS.STORE.API.…`. The
/// server itself answers `$JS.API.…` in each account, and the services' accounts have no JetStream.
pub const JETSTREAM_DOMAIN: &str = "STORE";
/// Asks JetStream for the state of the recorder's consumer of windows, which says how many wait.
pub const WINDOW_CONSUMER_INFO: &str = "$JS.STORE.API.CONSUMER.INFO.CACHE_EVENTS.recorder_windows";

/// Pattern of the gets: `cache.get.<key>[.<variant>]`.
pub const GET: &str = "cache.get.>";
/// Pattern of the puts.
pub const PUT: &str = "cache.put.>";
/// Pattern of the invalidations.
pub const INVALIDATE: &str = "cache.invalidate.>";
/// Drops every entry.
pub const CLEAR: &str = "cache.clear";
/// Asks for the configuration in force.
pub const CONFIG_GET: &str = "cache.config.get";
/// Changes the configuration.
pub const CONFIG_SET: &str = "cache.config.set";
/// Makes the worker read the bucket again.
pub const CONFIG_REFRESH: &str = "cache.config.refresh";
/// The worker's counters.
pub const STATS: &str = "cache.stats";
/// The resident entries.
pub const KEYS: &str = "cache.keys";
/// Makes the worker publish key events for a while.
pub const WATCH: &str = "cache.watch";
/// Pattern of the commands of one word, so that an unknown one gets an answer and not a timeout.
pub const ANY_COMMAND: &str = "cache.*";
/// Pattern of the commands about the configuration, for the same reason.
pub const ANY_CONFIG_COMMAND: &str = "cache.config.*";

/// Reports of the holders of near leases, about hits that they served by themselves.
pub const NEAR_HITS: &str = "cache.near.hits";

/// The recorded history, in rows.
pub const SERIES: &str = "stats.series";
/// The changes of the configuration.
pub const CONFIG_HISTORY: &str = "stats.config_history";
/// Pattern of the commands to the recorder, so that an unknown one gets an answer.
pub const ANY_STATS_COMMAND: &str = "stats.*";

/// The JetStream stream of windows, configured and cleared events.
pub const EVENT_STREAM: &str = "CACHE_EVENTS";
/// The subjects that it keeps.
pub const EVENT_STREAM_SUBJECTS: [&str; 3] =
    ["cache.event.window.*", "cache.event.configured.*", "cache.event.cleared.*"];
/// The recorder's durable consumer of that stream.
pub const WINDOW_CONSUMER: &str = "recorder_windows";
/// The subjects that this consumer takes.
pub const ALL_WINDOWS: &str = "cache.event.window.*";
/// The KV bucket of the live configuration.
pub const CONFIG_BUCKET: &str = "CACHE_CONFIG";
/// The stream behind that bucket.
pub const CONFIG_STREAM: &str = "KV_CACHE_CONFIG";
/// The one entry in it.
pub const CONFIG_KEY: &str = "live";
/// The KV bucket that says which worker serves.
pub const OWNERS_BUCKET: &str = "CACHE_OWNERS";
/// The stream behind that bucket.
pub const OWNERS_STREAM: &str = "KV_CACHE_OWNERS";
/// The entry for all keys. With partitions there would be one for each.
pub const OWNERS_KEY: &str = "0";
/// The subject of that entry in the stream.
pub const OWNERS_ENTRY: &str = "$KV.CACHE_OWNERS.0";
/// Writes it.
pub const OWNERS_WRITE: &str = "$JS.STORE.API.$KV.CACHE_OWNERS.0";
/// The subject of the entry of [`CONFIG_BUCKET`].
pub const CONFIG_ENTRY: &str = "$KV.CACHE_CONFIG.live";
/// Writes it.
pub const CONFIG_WRITE: &str = "$JS.STORE.API.$KV.CACHE_CONFIG.live";
/// The recorder's durable consumer of the bucket's stream.
pub const CONFIG_CONSUMER: &str = "recorder_config";
/// Pattern of all events that workers publish by themselves.
pub const ALL_EVENTS: &str = "cache.event.>";
/// Pattern of all key events.
pub const ALL_KEY_EVENTS: &str = "cache.event.key.>";

/// Pattern of the entries of a bucket, in the stream behind it.
pub fn entries_of(bucket: &str) -> String {
    format!("$KV.{bucket}.>")
}

/// Asks the leader of a stream for one of its messages.
pub fn stream_message(stream: &str) -> String {
    format!("$JS.STORE.API.STREAM.MSG.GET.{stream}")
}

/// Asks the leader of a stream for the stream's state.
pub fn stream_info(stream: &str) -> String {
    format!("$JS.STORE.API.STREAM.INFO.{stream}")
}

/// `cache.proof.<token>`: the worker sends it to itself, from one of its connections to the other.
pub fn proof(token: &str) -> String {
    format!("cache.proof.{token}")
}

/// Whether an answer may go to this subject: to an inbox, or back to another account, where the server makes the reply
/// subject. The asker names the subject, and must not reach by it a subject to which it may not publish.
pub fn is_reply_to_an_asker(reply: &str) -> bool {
    reply.starts_with("_R_.") || is_inbox_of_gateway(reply)
}

/// Whether this is the inbox of a gateway, and not of an operator.
pub fn is_inbox_of_gateway(reply: &str) -> bool {
    reply.starts_with("_INBOX_gateway.")
}

/// `cache.get.<key>[.<variant>]`. Its payload is empty, or the most bytes that the asker has room for, in decimal. A
/// larger image is not sent, and the refusal says its size. It is no header, because headers are expensive.
pub fn get(item: &Item) -> String {
    format!("cache.get.{}", item.tokens())
}

/// `cache.put.<key>[.<variant>]`
pub fn put(item: &Item) -> String {
    format!("cache.put.{}", item.tokens())
}

/// `cache.invalidate.<key>`: invalidates all items of the key.
pub fn invalidate(key: &Key) -> String {
    format!("cache.invalidate.{}", key.token())
}

/// `cache.near.drop.<holder>`: the worker asks a holder to drop copies.
pub fn near_drop(holder: Holder) -> String {
    format!("cache.near.drop.{holder}")
}

/// `cache.event.window.<worker>`
pub fn window_event(worker: &str) -> String {
    format!("cache.event.window.{worker}")
}

/// `cache.event.configured.<worker>`
pub fn configured_event(worker: &str) -> String {
    format!("cache.event.configured.{worker}")
}

/// `cache.event.cleared.<worker>`
pub fn cleared_event(worker: &str) -> String {
    format!("cache.event.cleared.{worker}")
}

/// `cache.event.key.<kind>.<key>`
pub fn key_event(kind: KeyEventKind, key: &Key) -> String {
    format!("cache.event.key.{}.{}", kind.as_str(), key.token())
}

/// The item that a get or put names behind the second dot of its subject.
///
/// # Errors
/// A sentence, when that part is not the token of a key, alone or with the token of a variant behind it.
pub fn item_of(subject: &str) -> Result<Item, String> {
    let tokens = behind_second_dot(subject);
    let Some((key, variant)) = tokens.split_once('.') else {
        return Ok(Key::from_token(tokens).map_err(|error| error.to_string())?.into());
    };
    let variant = variant.parse().map_err(|_| {
        format!(
            "the item in a subject must be a key with its dots written %2E, as in cat%2Epng, and a variant behind a \
             bare dot must be {}, as in cat%2Epng.w320, got {}",
            one_of(Variant::ALL),
            shown(tokens)
        )
    })?;
    Ok(Item { key: Key::from_token(key).map_err(|error| error.to_string())?, variant: Some(variant) })
}

/// The key that an invalidate names behind the second dot of its subject.
///
/// # Errors
/// A sentence, when that part is not one token of a key.
pub fn key_of(subject: &str) -> Result<Key, String> {
    let token = behind_second_dot(subject);
    if token.contains('.') {
        return Err(format!(
            "the key in a subject must be one token with its dots written %2E, as in cat%2Epng, got {}: its variants \
             go with it",
            shown(token)
        ));
    }
    Key::from_token(token).map_err(|error| error.to_string())
}

fn behind_second_dot(subject: &str) -> &str {
    subject.splitn(3, '.').nth(2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::item::Variant;

    #[test]
    fn a_subject_names_its_key() {
        let key = Key::new("a/b.png").unwrap();
        let item = Item::from(key.clone());
        assert_eq!(get(&item), "cache.get.a%2Fb%2Epng");
        assert_eq!(item_of(&get(&item)).unwrap(), item);
        assert_eq!(key_of(&invalidate(&key)).unwrap(), key);
        let variant = Item { variant: Some(Variant::W320), ..item };
        assert_eq!(put(&variant), "cache.put.a%2Fb%2Epng.w320");
        assert_eq!(item_of(&put(&variant)).unwrap(), variant);
    }

    #[test]
    fn what_names_no_key_is_said_to_be_none() {
        for subject in
            ["cache.get.cat.png", "cache.get.cat.", "cache.get.cat.w320.w320", "cache.get.a.b.w320"]
        {
            assert!(item_of(subject).unwrap_err().contains("w1280"), "{subject}");
        }
        assert!(key_of("cache.invalidate.cat.w320").unwrap_err().contains("%2E"));
        for subject in ["cache.get.", "cache.get", "cache.get..w320"] {
            assert!(item_of(subject).is_err() && key_of(subject).is_err(), "{subject}");
        }
    }
}
