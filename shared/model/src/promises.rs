//! With all rules kept, every promise holds.

use crate::scenes::{
    CONNECTIONS, CROWD, CUTS, DEATHS, DEATHS_IN_FLIGHT, LIVES, NEAR, NEAR_CLEARS, NEAR_CONNECTIONS,
    NEAR_CROWD, NEAR_DEATHS, NEAR_HANDOVER, NEAR_REFILLS, NEAR_STANDBY, NEAR_TWICE, NEAR_WIPE, PAUSES, PEACE,
    REFILLS, REMOVALS, STANDBY, STANDBY_REFILLS, TAKEBACKS,
};
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
fn nothing_is_stale_when_uploads_fill_the_cache() {
    holds(REFILLS);
}

#[test]
fn nothing_is_stale_when_a_standby_takes_over_while_uploads_fill_the_cache() {
    holds(STANDBY_REFILLS);
}

#[test]
fn no_copy_is_stale_when_uploads_fill_the_cache() {
    holds(NEAR_REFILLS);
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

#[test]
fn nothing_is_stale_when_the_claim_is_lost_or_taken_back_while_connections_stand() {
    holds(TAKEBACKS);
}

/// But for what a worker serves whose machine was paused with its clock, until its next renewal.
#[test]
fn nothing_else_is_stale_when_a_worker_is_paused_with_its_clock() {
    holds(PAUSES);
}

#[test]
fn no_copy_is_stale() {
    holds(NEAR);
}

#[test]
fn no_copy_is_stale_after_two_uploads() {
    holds(NEAR_TWICE);
}

#[test]
fn no_copy_is_stale_for_two_readers_at_once() {
    holds(NEAR_CROWD);
}

#[test]
fn no_copy_is_stale_when_others_are_dropped_in_between() {
    holds(NEAR_CLEARS);
}

#[test]
fn no_copy_is_stale_when_gateways_die() {
    holds(NEAR_DEATHS);
}

#[test]
fn no_copy_is_stale_across_connections_restarts_and_stops() {
    holds(NEAR_CONNECTIONS);
}

#[test]
fn no_copy_is_stale_when_a_standby_takes_over() {
    holds(NEAR_STANDBY);
}

#[test]
fn no_copy_is_stale_when_the_bucket_is_lost() {
    holds(NEAR_WIPE);
}

#[test]
fn no_copy_is_stale_when_a_standby_takes_over_at_once() {
    holds(NEAR_HANDOVER);
}
