//! With all rules kept, every promise holds.

use crate::scenes::{CONNECTIONS, CROWD, CUTS, DEATHS, DEATHS_IN_FLIGHT, LIVES, PEACE, REMOVALS, STANDBY};
use crate::search::holds;

#[test]
fn nothing_is_stale_whatever_comes_late_or_never() {
    holds(PEACE);
}

#[test]
fn nothing_is_stale_for_three_readers_at_once() {
    holds(CROWD);
}

#[test]
fn nothing_is_stale_or_missing_while_replaced_files_are_removed() {
    holds(REMOVALS);
}

#[test]
fn nothing_is_left_behind_by_gateways_that_die() {
    holds(DEATHS);
}

#[test]
fn nothing_is_stale_when_gateways_die_with_reads_in_flight() {
    holds(DEATHS_IN_FLIGHT);
}

#[test]
fn nothing_is_stale_across_connections_restarts_and_stops() {
    holds(CONNECTIONS);
}

#[test]
fn nothing_is_stale_when_a_standby_takes_over() {
    holds(STANDBY);
}

#[test]
fn nothing_is_stale_when_two_workers_are_killed_and_stopped_in_turn() {
    holds(LIVES);
}

#[test]
fn nothing_is_stale_when_two_workers_are_cut_off_and_the_bucket_is_lost() {
    holds(CUTS);
}
