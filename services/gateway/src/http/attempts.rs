//! Wrong tokens, counted by where they come from: guessing goes at the pace of one every two seconds.
//!
//! A right token would tell itself by an answer that comes at once, however late the others came, so slowing guesses
//! down means not to look at them. Nobody else is kept out: another address has a count of its own, and an address
//! from which the right token has come lately is looked at whatever else comes from it, because its owner may share it
//! with a guesser (a proxy that is not named in `TRUSTED_PROXIES`, an office).

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::visitor::Visitor;

/// So many may be wrong at once.
const AT_ONCE: u32 = 10;
/// After how long one more may.
const EACH: Duration = Duration::from_secs(2);
/// How long a right token speaks for its address.
const TRUSTED: Duration = Duration::from_secs(3600);
/// The most addresses that are remembered: less than a megabyte. Whoever has more of them is not held up by a limit
/// for each, and must not have others forgotten for long: what is over is forgotten first, then all.
const MOST: usize = 10_000;

/// The addresses that have sent tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Visitor, Record>>>);

#[derive(Debug, Clone, Copy)]
struct Record {
    /// When all wrong ones will be forgiven: each adds [`EACH`].
    forgiven: Instant,
    /// Until when a right token speaks for it.
    trusted: Instant,
}

impl Record {
    fn over(self, now: Instant) -> bool {
        self.forgiven <= now && self.trusted <= now
    }

    /// How long the next one has to wait.
    fn wait(self, now: Instant) -> Duration {
        self.forgiven.saturating_duration_since(now).saturating_sub(EACH * (AT_ONCE - 1))
    }
}

impl Attempts {
    /// Whether a token from there is looked at.
    ///
    /// # Errors
    /// In how many seconds the next one is.
    pub(super) fn may_try(&self, visitor: Visitor) -> Result<(), u64> {
        let now = Instant::now();
        let Some(record) = self.records().get(&visitor).copied() else { return Ok(()) };
        let wait = record.wait(now);
        if wait.is_zero() || record.trusted > now {
            return Ok(());
        }
        Err(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    /// Counts a wrong token. Returns whether the next one from this address has to wait, and this one had not.
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
        // Who gives up is forgiven.
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
        // A crowd of guessers has no operator forgotten.
        assert!(attempts.records().contains_key(&visitor(1)));
    }
}
