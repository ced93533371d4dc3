//! Without any one part of a rule, a promise is broken. Each test leaves one out, and the search tells how it
//! is missed; `cargo test --test model rule -- --show-output` shows the steps.

use crate::protocol::{NEVER_FAILS, NEVER_STALE, NOTHING_LEFT_BEHIND, ONE_SERVES, Protocol};
use crate::rules::Rule;
use crate::scenes::smaller::{DEATHS_ALONE, ONE_LOSS, ONE_STOP, QUIET_STANDBY, RECONNECTIONS};
use crate::scenes::{DEATHS, PEACE, REMOVALS, STANDBY};
use crate::search::{breaks, breaks_without, holds_without};

#[test]
fn rule_1_a_number_used_twice_lets_a_late_fill_in() {
    breaks_without(&[Rule::LeaseNumbersAreUsedOnce], PEACE, NEVER_STALE);
}

#[test]
fn rule_1_numbers_that_begin_anew_in_each_life_let_a_late_fill_in() {
    breaks_without(&[Rule::LaterLivesUseOtherLeaseNumbers], RECONNECTIONS, NEVER_STALE);
}

#[test]
fn rule_1_whoever_misses_without_a_lease_must_not_fill() {
    breaks_without(&[Rule::OnlyTheLeaseFills], PEACE, NEVER_STALE);
}

#[test]
fn rule_2_a_fill_with_a_lease_that_is_not_current_must_be_refused() {
    breaks_without(&[Rule::FillsNeedTheCurrentLease], PEACE, NEVER_STALE);
}

#[test]
fn rule_2_a_row_read_before_the_lease_arrived_must_not_be_filled() {
    breaks_without(&[Rule::TheRowIsReadAfterTheLease], PEACE, NEVER_STALE);
}

#[test]
fn rule_3_an_invalidation_must_remove_the_entry() {
    breaks_without(&[Rule::InvalidationsRemoveTheEntry], PEACE, NEVER_STALE);
}

#[test]
fn rule_3_an_invalidation_must_void_the_lease() {
    breaks_without(&[Rule::InvalidationsVoidTheLease], PEACE, NEVER_STALE);
}

#[test]
fn rule_3_an_acknowledgement_before_the_removal_is_too_early() {
    breaks_without(&[Rule::AcknowledgedLast], PEACE, NEVER_STALE);
}

#[test]
fn rule_3_a_fill_between_the_removal_and_the_voiding_stays() {
    breaks_without(&[Rule::InvalidationsAreOneStep], PEACE, NEVER_STALE);
}

#[test]
fn rule_4_a_flight_must_take_nobody_in_after_its_fill_was_sent() {
    breaks_without(&[Rule::FlightsCloseBeforeTheFill], PEACE, NEVER_STALE);
}

#[test]
fn rule_4_a_flight_whose_fill_was_refused_must_not_be_shared() {
    breaks_without(&[Rule::RefusedFillsAreNotShared], PEACE, NEVER_STALE);
}

#[test]
fn rule_4_a_flight_whose_fill_was_not_answered_must_not_be_shared() {
    breaks_without(&[Rule::UnansweredFillsAreNotShared], PEACE, NEVER_STALE);
}

#[test]
fn rule_5_a_file_that_is_gone_must_be_looked_up_again() {
    breaks_without(&[Rule::GoneFilesAreLookedUpAgain], REMOVALS, NEVER_FAILS);
}

#[test]
fn rule_6_an_answer_before_the_acknowledgement_is_too_early() {
    breaks_without(&[Rule::AnsweredAfterTheAcknowledgement], PEACE, NEVER_STALE);
}

#[test]
fn rule_6_silence_must_not_be_answered_as_success() {
    breaks_without(&[Rule::SilenceIsNoAcknowledgement], PEACE, NEVER_STALE);
}

#[test]
fn rule_6_without_a_note_a_gateway_that_dies_leaves_the_old_image_behind() {
    breaks_without(&[Rule::ChangesAreNoted], DEATHS_ALONE, NOTHING_LEFT_BEHIND);
}

#[test]
fn rule_6_without_a_note_the_same_request_sent_again_is_answered_and_the_old_image_served() {
    breaks_without(&[Rule::ChangesAreNoted], DEATHS, NEVER_STALE);
}

#[test]
fn rule_6_a_note_after_the_transaction_is_too_late() {
    breaks_without(&[Rule::NotedNotAfterTheRow], DEATHS_ALONE, NOTHING_LEFT_BEHIND);
}

#[test]
fn rule_6_a_note_before_the_transaction_may_be_gone_too_early() {
    breaks_without(&[Rule::NotedNotBeforeTheRow], DEATHS_ALONE, NOTHING_LEFT_BEHIND);
}

#[test]
fn rule_6_an_acknowledgement_must_not_remove_the_note_of_a_later_upload() {
    breaks_without(&[Rule::NotesGoByTheirToken], DEATHS_ALONE, NOTHING_LEFT_BEHIND);
}

#[test]
fn rule_6_a_request_that_changes_nothing_must_tell_what_is_pending() {
    breaks_without(&[Rule::UnchangedRowsAreToldToo], DEATHS, NEVER_STALE);
}

#[test]
fn rule_7_a_hit_before_the_proof_may_be_stale() {
    breaks_without(&[Rule::NoHitsBeforeTheProof], RECONNECTIONS, NEVER_STALE);
}

#[test]
fn rule_7_a_fill_before_the_proof_may_be_stale_for_those_who_share_it() {
    breaks_without(&[Rule::NoFillsBeforeTheProof], RECONNECTIONS, NEVER_STALE);
}

#[test]
fn rule_7_an_entry_kept_across_connections_may_be_stale() {
    breaks_without(&[Rule::ReconnectionsDropEntries], RECONNECTIONS, NEVER_STALE);
}

#[test]
fn rule_7_a_lease_kept_across_connections_may_fill_what_is_stale() {
    breaks_without(&[Rule::ReconnectionsVoidLeases], RECONNECTIONS, NEVER_STALE);
}

/// Each of the two makes up for the other: a lease that was handed out before the proof is void after it.
#[test]
fn rule_7_leases_before_the_proof_may_fill_what_is_stale_unless_they_are_dropped_with_it() {
    breaks_without(&[Rule::NoLeasesBeforeTheProof, Rule::DroppedAfterTheProof], RECONNECTIONS, NEVER_STALE);
    holds_without(&[Rule::NoLeasesBeforeTheProof], RECONNECTIONS);
    holds_without(&[Rule::DroppedAfterTheProof], RECONNECTIONS);
}

#[test]
fn rule_8_a_get_after_invalidations_have_left_may_be_stale() {
    breaks_without(&[Rule::GetLeavesBeforeInvalidate], RECONNECTIONS, NEVER_STALE);
}

#[test]
fn rule_9_a_hit_after_the_claim_ran_out_may_be_stale() {
    breaks_without(&[Rule::HitsNeedTheClaim], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_a_fill_after_the_claim_ran_out_may_be_stale_for_those_who_share_it() {
    breaks_without(&[Rule::FillsNeedTheClaim], STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_an_acknowledgement_after_the_claim_ran_out_says_nothing_about_who_serves() {
    breaks_without(&[Rule::AcknowledgementsNeedTheClaim], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_a_claim_must_count_from_before_its_renewal_was_sent() {
    breaks_without(&[Rule::ClaimsCountFromBeforeTheRenewal], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_a_worker_that_is_silent_must_be_waited_for() {
    breaks_without(&[Rule::StandbysWait], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_clocks_that_differ_need_a_margin() {
    breaks_without(&[Rule::StandbysWaitAMargin], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_a_clock_that_stands_still_while_others_go_on_makes_two_owners() {
    breaks_without(&[Rule::ClocksGoOn], QUIET_STANDBY, NEVER_STALE);
    breaks_without(&[Rule::ClocksGoOn], QUIET_STANDBY, ONE_SERVES);
}

#[test]
fn rule_9_an_entry_kept_across_claims_may_be_stale() {
    breaks_without(&[Rule::LostClaimsDropEverything], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_a_claim_given_up_before_the_worker_has_left_makes_two_owners() {
    breaks_without(&[Rule::ReleasedLast], ONE_STOP, NEVER_STALE);
}

#[test]
fn rule_9_nothing_must_be_served_on_a_new_connection_before_the_claim_was_renewed_on_it() {
    breaks_without(&[Rule::NewConnectionsRenewBeforeServing], ONE_LOSS, NEVER_STALE);
}

#[test]
fn rule_9_nothing_must_be_acknowledged_on_a_new_connection_before_the_claim_was_renewed_on_it() {
    breaks_without(&[Rule::NewConnectionsRenewBeforeAcknowledging], ONE_LOSS, NEVER_STALE);
}

#[test]
fn rule_9_no_responders_from_a_server_that_does_not_see_the_worker_means_nothing() {
    breaks_without(&[Rule::NoRespondersMeansNone], PEACE, NEVER_STALE);
}

/// What the rules say beyond need, by itself: no get is left to be served then, and no fill to be taken.
#[test]
fn some_parts_of_the_rules_are_kept_for_the_sake_of_clarity() {
    holds_without(&[Rule::PutLeavesBeforeInvalidate], RECONNECTIONS);
    holds_without(&[Rule::LeasesNeedTheClaim], QUIET_STANDBY);
}

/// The promise is about answered uploads, no more: it makes of a key what Lamport calls a regular register
/// (On Interprocess Communication, 1986), not an atomic one. While an upload is on its way to its answer, one
/// read may return the new image, from the row, and a later one the old, from the cache.
#[test]
fn while_an_upload_is_on_its_way_a_read_may_return_an_older_image_than_the_one_before_it() {
    let mut protocol = Protocol::new(PEACE, &[]);
    protocol.counts_reads = true;
    breaks(protocol, NEVER_STALE);
}
