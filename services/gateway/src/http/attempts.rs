//! Counts wrong tokens by address, so that guesses are checked at a pace of one every two seconds.
//!
//! A guess beyond that pace is refused unchecked. A late answer would not slow a guesser down: the right token would
//! show by an answer that comes at once. No other client is locked out, because each address has a count of its own. If
//! the right token has come from an address lately, all tokens from it are checked. Its owner may share it with a
//! guesser, behind a proxy that is not named in `TRUSTED_PROXIES` or in an office.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::visitor::Visitor;

/// The wrong tokens that an address may send at once.
const AT_ONCE: u32 = 10;
/// The time after which it may send one more.
const EACH: Duration = Duration::from_secs(2);
/// How long after a right token all tokens from its address are checked.
const TRUSTED: Duration = Duration::from_secs(3600);
/// The most addresses that are remembered: less than a megabyte. A guesser with more addresses is not slowed down by a
/// limit for each. It must not make the gateway forget other addresses for long. So expired records go first, then
/// records without a right token, then all.
const MOST: usize = 10_000;

/// The addresses that have sent tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Visitor, Record>>>);

#[derive(Debug, Clone, Copy)]
struct Record {
    /// When all wrong tokens will be forgiven: each adds [`EACH`].
    forgiven: Instant,
    /// Until when all its tokens are checked, because a right one has come.
    trusted: Instant,
}

impl Record {
    fn over(self, now: Instant) -> bool {
        self.forgiven <= now && self.trusted <= now
    }

    /// How long the next token has to wait.
    fn wait(self, now: Instant) -> Duration {
        self.forgiven.saturating_duration_since(now).saturating_sub(EACH * (AT_ONCE - 1))
    }
}

impl Attempts {
    /// Whether a token from this address is checked now.
    ///
    /// # Errors
    /// The seconds until the next token is checked.
    pub(super) fn may_try(&self, visitor: Visitor) -> Result<(), u64> {
        let now = Instant::now();
        let Some(record) = self.records().get(&visitor).copied() else { return Ok(()) };
        let wait = record.wait(now);
        if wait.is_zero() || record.trusted > now {
            return Ok(());
        }
        Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// Counts a wrong token. Returns true if the next token from this address has to wait and this one had not.
    pub(super) fn was_wrong(&self, visitor: Visitor) -> bool {
        let now = Instant::now();
        let mut records = self.records();
        let record = entry(&mut records, visitor, now);
        let had_to_wait = !record.wait(now).is_zero();
        record.forgiven = (record.forgiven.max(now) + EACH).min(now + EACH * (AT_ONCE + 1));
        !had_to_wait && !record.wait(now).is_zero() && record.trusted <= now
    }

    /// Remembers that the right token came from this address.
    pub(super) fn was_right(&self, visitor: Visitor) {
        let now = Instant::now();
        entry(&mut self.records(), visitor, now).trusted = now + TRUSTED;
    }
    fn records(&self) -> MutexGuard<'_, HashMap<Visitor, Record>> {
        self.0.lock()
    }
}

fn entry(records: &mut HashMap<Visitor, Record>, visitor: Visitor, now: Instant) -> &mut Record {
    if records.len() >= MOST && !records.contains_key(&visitor) {
        records.retain(|_, record| !record.over(now));
        if records.len() >= MOST {
            // Addresses without a right token go first.
            records.retain(|_, record| record.trusted > now);
        }
        if records.len() >= MOST {
            records.clear();
        }
    }
    records.entry(visitor).or_insert(Record { forgiven: now, trusted: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::time::advance;

    fn visitor(number: u32) -> Visitor {
        IpAddr::V4(Ipv4Addr::from_bits(number)).into()
    }

    fn wrong_until_refused(attempts: &Attempts, visitor: Visitor) -> u32 {
        let mut count = 0;
        while attempts.may_try(visitor).is_ok() {
            attempts.was_wrong(visitor);
            count += 1;
            assert!(count <= 1000);
        }
        count
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_go_at_the_pace_that_is_set_and_only_those_of_their_address() {
        let attempts = Attempts::default();
        let (guesser, other) = (visitor(1), visitor(2));
        assert_eq!(wrong_until_refused(&attempts, guesser), AT_ONCE);
        assert_eq!(attempts.may_try(guesser), Err(2));
        assert_eq!(attempts.may_try(other), Ok(()));
        let mut count = 0;
        for _ in 0..600 {
            advance(Duration::from_secs(1)).await;
            count += wrong_until_refused(&attempts, guesser);
        }
        assert_eq!(count, 300);
        // After a pause, all wrong tokens are forgiven.
        advance(EACH * AT_ONCE).await;
        assert_eq!(wrong_until_refused(&attempts, guesser), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_token_speaks_for_its_address_for_a_while() {
        let attempts = Attempts::default();
        let shared = visitor(1);
        attempts.was_right(shared);
        for _ in 0..1000 {
            attempts.was_wrong(shared);
            assert_eq!(attempts.may_try(shared), Ok(()));
        }
        advance(TRUSTED - Duration::from_secs(1)).await;
        attempts.was_right(shared);
        advance(TRUSTED - Duration::from_secs(1)).await;
        assert_eq!(attempts.may_try(shared), Ok(()));
        advance(Duration::from_secs(2)).await;
        assert_eq!(wrong_until_refused(&attempts, shared), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_the_warning_comes_once() {
        let attempts = Attempts::default();
        let warnings = (0..1000).filter(|_| attempts.was_wrong(visitor(0))).count();
        assert_eq!(warnings, 1);
        attempts.was_right(visitor(1));
        for number in 2..100_000 {
            attempts.was_wrong(visitor(number));
        }
        assert!(attempts.records().len() <= MOST);
        // Many guessers do not make the gateway forget the address of an operator.
        assert!(attempts.records().contains_key(&visitor(1)));
    }
}
