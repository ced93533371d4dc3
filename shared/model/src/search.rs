//! Searching all states of a scene, the nearest first.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::next::Next;
use crate::protocol::{Protocol, Scene, Step};
use crate::rules::Rule;
use crate::state::System;

/// Every promise holds in each state of the scene, and whatever is to happen in it does.
pub(crate) fn holds(scene: Scene) {
    search_all(Protocol::new(scene, &[]));
    let mut looking = Protocol::new(scene, &[]);
    looking.looks = true;
    looking.checker().finish_when(HasDiscoveries::All).spawn_bfs().join().assert_properties();
}

/// Every promise holds in each state of the scene even without these.
pub(crate) fn holds_without(left_out: &'static [Rule], scene: Scene) {
    search_all(Protocol::new(scene, left_out));
}

fn search_all(protocol: Protocol) {
    let begin = Instant::now();
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    if let Some((promise, path)) = checker.discoveries().into_iter().next() {
        panic!("{}", broken(checker.model(), promise, path));
    }
    checker.assert_properties();
    println!(
        "{}: {} states, {} steps between them, {} deep, {:.1?}",
        checker.model(),
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        begin.elapsed()
    );
}

/// Without these, the promise is broken: the search says how, in the fewest steps.
pub(crate) fn breaks_without(left_out: &'static [Rule], scene: Scene, promise: &'static str) {
    breaks(Protocol::new(scene, left_out), promise);
}

/// The promise is broken: the search says how, in the fewest steps.
pub(crate) fn breaks(protocol: Protocol, promise: &'static str) {
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyOf([promise].into())).spawn_bfs().join();
    let path = checker.assert_any_discovery(promise);
    println!("{}", broken(checker.model(), promise, path));
}

fn broken(protocol: &Protocol, promise: &str, path: Path<System, Step>) -> String {
    let steps = story(protocol, path);
    let mut text = format!("{protocol}: it is not so that {promise}, after {} steps:", steps.len());
    for step in steps {
        text.push_str(&format!("\n    {step:?}"));
    }
    text
}

/// A path as it reads best: with the numbers and places as they were at first, where the search takes each
/// state for all that are like it.
fn story(protocol: &Protocol, path: Path<System, Step>) -> Vec<Step> {
    let (mut system, mut story, mut steps) = (protocol.start(), Vec::new(), Vec::new());
    for like in path.clone().into_states().into_iter().skip(1) {
        protocol.actions(&system, &mut steps);
        let next = steps.drain(..).find_map(|step| {
            let next = Next::after(protocol, &system, step);
            (protocol.canonical(next) == like).then_some((step, next))
        });
        let Some((step, next)) = next else { return path.into_actions() };
        story.push(step);
        system = next;
    }
    story
}
