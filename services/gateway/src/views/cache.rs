//! The context of the page of the cache's settings.

use std::cmp::Ordering;

use charts::units;
use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::Serialize;
use time::OffsetDateTime;
use wire::stats::{ConfigRevision, Effect};
use wire::{CacheStats, ConfigReply, Policy};

use super::shell::{Done, Moment};

/// The phrase that has to be typed to delete everything.
pub(crate) const DELETE_ALL_PHRASE: &str = "delete everything";

/// `cache.html`
#[derive(Debug, Serialize)]
pub(crate) struct CachePage {
    /// The notice about the action that was just done.
    pub(crate) done: Option<Done>,
    /// The form that was refused, and the reason.
    pub(crate) error: Option<FormError>,
    /// The values in the forms.
    pub(crate) form: CacheForm,
    /// The configuration in force.
    pub(crate) config: Option<Value>,
    /// The worker's counters.
    pub(crate) stats: Option<CacheStats>,
    /// How full the cache is, 0 to 1.
    pub(crate) share: f64,
    /// Why there are no counters.
    pub(crate) stats_error: Option<String>,
    /// The changes, the newest first.
    pub(crate) history: Vec<ChangeView>,
    /// The time before and after a change that its effect is taken from, in milliseconds.
    pub(crate) compared_ms: u64,
    /// Why there are no changes to show.
    pub(crate) history_error: Option<String>,
    /// How many images are stored.
    pub(crate) stored_count: Option<u64>,
    /// The phrase that has to be typed to delete everything.
    pub(crate) confirmation_phrase: &'static str,
    /// The sentence about the files of deleted images.
    pub(crate) fate: String,
}

/// A form of the page was refused.
#[derive(Debug, Serialize)]
pub(crate) struct FormError {
    /// The form: `config`, `clear` or `delete_all`.
    pub(crate) form: &'static str,
    /// Whether it is done nevertheless, and only the cache does not know it yet.
    pub(crate) done: bool,
    /// The title of the error.
    pub(crate) title: &'static str,
    /// Why.
    pub(crate) message: String,
}

/// The values in the forms of the cache's page: the typed values, else those in force.
#[derive(Debug, Serialize)]
pub(crate) struct CacheForm {
    /// The capacity as text, because the typed value may not be one.
    pub(crate) capacity_mb: String,
    /// The largest that is allowed, if the worker answers.
    pub(crate) max_capacity_mb: Option<u64>,
    /// The name of the policy that is chosen.
    pub(crate) policy: String,
    /// The phrase that was typed to confirm the deletion of everything.
    pub(crate) confirmation: String,
    policies: [PolicyView; 4],
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PolicyView {
    name: &'static str,
    label: &'static str,
    meaning: &'static str,
}

impl CacheForm {
    /// The forms with the values in force.
    pub(crate) fn new(config: Option<&ConfigReply>) -> Self {
        Self {
            capacity_mb: config.map(|reply| reply.config.capacity_mb.mb().to_string()).unwrap_or_default(),
            max_capacity_mb: config.map(|reply| reply.max_capacity_mb),
            policy: config.map(|reply| reply.config.policy.to_string()).unwrap_or_default(),
            confirmation: String::new(),
            policies: Policy::ALL.map(policy_view),
        }
    }
}

fn policy_view(policy: Policy) -> PolicyView {
    let (label, meaning) = match policy {
        Policy::None => (
            "None",
            "Keeps nothing: every read is a miss and comes from the origin. It shows the worth of the cache.",
        ),
        Policy::Random => (
            "Random replacement",
            "A random entry leaves, each as likely as any other. No pattern of reads can defeat it.",
        ),
        Policy::Lru => (
            "Least recently used",
            "The entry that was not read for the longest time leaves. It suits images that are read again soon.",
        ),
        Policy::ClockPro => (
            "CLOCK-Pro",
            "Entries that are read again and again stay, even while a program reads all images once. It suits \
             real traffic where the capacity is short.",
        ),
    };
    PolicyView { name: policy.as_str(), label, meaning }
}

/// One change of the configuration.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ChangeView {
    revision: u64,
    pub(super) what: String,
    capacity: u64,
    policy: &'static str,
    pub(super) by: String,
    at: Moment,
    effect: Option<EffectView>,
}

/// The hit ratio before and after a change, as text; none where nothing was read.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct EffectView {
    before: Option<String>,
    after: Option<String>,
    /// `up`, `down` or `same`, if both are known.
    direction: Option<&'static str>,
    /// The numbers of gets from which both ratios are calculated.
    before_count: u64,
    after_count: u64,
}

impl EffectView {
    fn new(effect: Effect) -> Self {
        let (before, after) = (effect.before.hit_ratio(), effect.after.hit_ratio());
        // The ratios are compared in tenths of a percent, as they are shown: equal texts count as the same.
        let tenths = |ratio: f64| (ratio * 1000.0).round() as i64;
        let direction = before.zip(after).map(|(before, after)| match tenths(after).cmp(&tenths(before)) {
            Ordering::Greater => "up",
            Ordering::Less => "down",
            Ordering::Equal => "same",
        });
        Self {
            before: before.map(units::percent),
            after: after.map(units::percent),
            direction,
            before_count: effect.before.request_count,
            after_count: effect.after.request_count,
        }
    }
}

/// The changes in words, each against the one before it. Newest first, as they come.
pub(crate) fn changes(revisions: &[ConfigRevision], now: OffsetDateTime) -> Vec<ChangeView> {
    let before = revisions.iter().skip(1).map(Some).chain([None]);
    let view = |(revision, before): (&ConfigRevision, Option<&ConfigRevision>)| {
        let mut what = Vec::new();
        if let Some(before) = before {
            if revision.max_capacity != before.max_capacity {
                let (from, to) = (units::bytes(before.max_capacity), units::bytes(revision.max_capacity));
                what.push(format!("capacity {from} → {to}"));
            }
            if revision.replacement_policy != before.replacement_policy {
                what.push(format!("policy {} → {}", before.replacement_policy, revision.replacement_policy));
            }
            if revision.generation != before.generation {
                what.push("cleared".to_owned());
            }
            if what.is_empty() {
                what.push("set again, unchanged".to_owned());
            }
        } else {
            what.push(format!("{}, {}", units::bytes(revision.max_capacity), revision.replacement_policy));
        }
        ChangeView {
            revision: revision.revision,
            what: what.join(", "),
            capacity: revision.max_capacity,
            policy: revision.replacement_policy.as_str(),
            by: revision.changed_by.clone(),
            at: Moment::new(revision.created_at, now),
            effect: revision.effect.map(EffectView::new),
        }
    };
    revisions.iter().zip(before).map(view).collect()
}

/// The configuration in force, as `cache.html` needs it.
pub(crate) fn config_view(reply: &ConfigReply, now: OffsetDateTime) -> Value {
    context! {
        changed_by => &reply.config.changed_by,
        changed_at => Serde(Moment::new(reply.config.changed_at, now)),
    }
}

/// How much of `capacity` is used, 0 to 1.
pub(crate) fn share(size: u64, capacity: u64) -> f64 {
    if capacity == 0 { 0.0 } else { (size as f64 / capacity as f64).min(1.0) }
}
