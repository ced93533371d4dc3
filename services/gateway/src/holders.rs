//! Registries of connections, event streams and bodies on their way, all of which are limited. The owner of a registry
//! chooses which holder leaves for another one. Numbers, counts by address and the token to leave are the same for all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::visitor::Visitor;

/// How many an address has.
#[derive(Debug, Default)]
pub(crate) struct Counts(HashMap<Visitor, usize>);

impl Counts {
    /// How many `visitor` has.
    pub(crate) fn of(&self, visitor: Visitor) -> usize {
        self.0.get(&visitor).copied().unwrap_or_default()
    }

    /// An address that has most, and how many.
    pub(crate) fn most(&self) -> Option<(Visitor, usize)> {
        self.0.iter().map(|(visitor, count)| (*visitor, *count)).max_by_key(|(_, count)| *count)
    }

    /// Counts one more.
    pub(crate) fn add(&mut self, visitor: Visitor) {
        *self.0.entry(visitor).or_default() += 1;
    }

    /// Counts one less.
    pub(crate) fn remove(&mut self, visitor: Visitor) {
        if let Some(count) = self.0.get_mut(&visitor) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&visitor);
            }
        }
    }

    /// Whether no address has any.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All holders. Clones share them.
#[derive(Debug)]
pub(crate) struct Registry<T>(Arc<Mutex<Holders<T>>>);

/// The holders under the registry's lock.
#[derive(Debug)]
pub(crate) struct Holders<T> {
    next: u64,
    /// By number, so the oldest first.
    all: BTreeMap<u64, Holder<T>>,
    counts: Counts,
}

/// One holder.
#[derive(Debug)]
pub(crate) struct Holder<T> {
    /// The facts that the owner of the registry keeps about it.
    pub(crate) state: T,
    /// The address that it counts for, if any.
    pub(crate) visitor: Option<Visitor>,
    leave: CancellationToken,
}

/// The entry of one holder, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<T> {
    registry: Registry<T>,
    number: u64,
    leave: CancellationToken,
}

impl<T> Registry<T> {
    /// The holders.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Holders<T>> {
        self.0.lock()
    }

    /// Enters a holder.
    pub(crate) fn enter(&self, visitor: Option<Visitor>, state: T) -> Held<T> {
        let mut holders = self.lock();
        self.enter_among(&mut holders, visitor, state)
    }

    /// As [`Registry::enter`], under the lock that is held already.
    pub(crate) fn enter_among(
        &self,
        holders: &mut Holders<T>,
        visitor: Option<Visitor>,
        state: T,
    ) -> Held<T> {
        let (number, leave) = (holders.next, CancellationToken::new());
        holders.next += 1;
        if let Some(visitor) = visitor {
            holders.counts.add(visitor);
        }
        holders.all.insert(number, Holder { state, visitor, leave: leave.clone() });
        Held { registry: self.clone(), number, leave }
    }
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        let holders = Holders { next: 0, all: BTreeMap::new(), counts: Counts::default() };
        Self(Arc::new(Mutex::new(holders)))
    }
}

impl<T> Holders<T> {
    /// The holders with their numbers, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Holder<T>)> {
        self.all.iter().map(|(number, holder)| (*number, holder))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many of them each address has.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Removes a holder and tells it to leave.
    pub(crate) fn end(&mut self, number: u64) {
        if let Some(holder) = self.remove(number) {
            holder.leave.cancel();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Holder<T>> {
        let holder = self.all.remove(&number)?;
        if let Some(visitor) = holder.visitor {
            self.counts.remove(visitor);
        }
        Some(holder)
    }
}

impl<T> Held<T> {
    /// Changes what is known of the holder, unless it has been ended.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        if let Some(holder) = self.registry.lock().all.get_mut(&self.number) {
            change(&mut holder.state);
        }
    }

    /// Takes it out of the registry: it holds nothing any more, and is not told to leave.
    pub(crate) fn give_up(&self) {
        self.registry.lock().remove(self.number);
    }

    /// The token that is cancelled when it has to leave.
    pub(crate) fn leave(&self) -> &CancellationToken {
        &self.leave
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.give_up();
    }
}
