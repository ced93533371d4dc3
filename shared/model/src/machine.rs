//! The protocol as a machine of states and steps, and its promises.

use stateright::{Model, Property};

use crate::next::Next;
use crate::protocol::{NEVER_FAILS, NEVER_STALE, NOTHING_LEFT_BEHIND, ONE_SERVES, Protocol, Step};
use crate::rules::Rule;
use crate::state::{System, Verdict};

impl Model for Protocol {
    type State = System;
    type Action = Step;

    fn init_states(&self) -> Vec<System> {
        vec![self.canonical(self.start())]
    }

    fn actions(&self, system: &System, steps: &mut Vec<Step>) {
        if system.verdict != Verdict::Good {
            return;
        }
        self.steps_of_reads(system, steps);
        self.steps_of_tellings(system, steps);
        if self.scene.near {
            self.steps_of_near_leases(system, steps);
        }
        for worker in self.workers() {
            self.steps_of_a_store(system, worker, steps);
            self.steps_of_a_connection(system, worker, steps);
            if self.scene.standby {
                self.steps_of_a_claim(system, worker, steps);
            }
        }
        if self.scene.standby {
            steps.push(Step::Tick { asleep: None });
            if !self.keeps(Rule::ClocksGoOn) {
                steps.extend(self.workers().map(|worker| Step::Tick { asleep: Some(worker) }));
            }
        }
        if system.left.wipes > 0 {
            steps.push(Step::ServerForgets);
        }
        if system.left.takebacks > 0 {
            steps.push(Step::StreamForgets);
        }
        if system.left.pauses > 0 {
            steps.extend(self.workers().map(|paused| Step::TickInAPause { paused }));
        }
    }

    fn next_state(&self, system: &System, step: Step) -> Option<System> {
        Some(self.canonical(Next::after(self, system, step)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        if self.looks {
            return self.sights();
        }
        vec![
            Property::always(NEVER_STALE, |protocol, system: &System| {
                protocol.holds(0, system.verdict != Verdict::Stale)
            }),
            Property::always(NEVER_FAILS, |protocol, system: &System| {
                protocol.holds(1, system.verdict != Verdict::Failed)
            }),
            Property::always(NOTHING_LEFT_BEHIND, |protocol, system: &System| {
                protocol.holds(2, system.servers_of_old_images_are_told())
            }),
            Property::always(ONE_SERVES, |protocol, system: &System| {
                protocol.holds(3, system.workers.iter().filter(|worker| worker.serves()).count() <= 1)
            }),
        ]
    }
}
