//! Without any one part of a rule, a promise is broken. Each test leaves one out, and the search tells how it
//! is missed; `cargo test --test model rule -- --show-output` shows the steps.

use crate::protocol::{NEVER_FAILS, NEVER_STALE, NOTHING_LEFT_BEHIND, ONE_SERVES, Protocol, Scene};
use crate::rules::Rule;
use crate::scenes::smaller::{
    DEATHS_ALONE, ONE_LOSS, ONE_STOP, QUIET_STANDBY, RECONNECTIONS, RENEWALS_AND_A_STANDBY,
};
use crate::scenes::{
    DEATHS, NEAR, NEAR_CLEARS, NEAR_CONNECTIONS, NEAR_STANDBY, NEAR_TWICE, PAUSES, PEACE, REFILLS, REMOVALS,
    STANDBY, TAKEBACKS,
};
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
fn rule_2_an_upload_must_not_fill_with_what_another_one_may_have_replaced() {
    breaks_without(&[Rule::UploadsReadTheRowToo], REFILLS, NEVER_STALE);
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
    breaks_if_no_responders_is_believed(Rule::NoHitsBeforeTheProof, RECONNECTIONS);
}

#[test]
fn rule_7_a_fill_before_the_proof_may_be_stale_for_those_who_share_it() {
    breaks_if_no_responders_is_believed(Rule::NoFillsBeforeTheProof, RECONNECTIONS);
}

#[test]
fn rule_7_an_entry_kept_across_connections_may_be_stale() {
    breaks_if_no_responders_is_believed(Rule::ReconnectionsDropEntries, RECONNECTIONS);
}

#[test]
fn rule_7_a_lease_kept_across_connections_may_fill_what_is_stale() {
    breaks_if_no_responders_is_believed(Rule::ReconnectionsVoidLeases, RECONNECTIONS);
}

/// Each of the two makes up for the other: a lease that was handed out before the proof is void after it.
#[test]
fn rule_7_leases_before_the_proof_may_fill_what_is_stale_unless_they_are_dropped_with_it() {
    breaks_without(
        &[Rule::NoLeasesBeforeTheProof, Rule::DroppedAfterTheProof, Rule::NoRespondersIsNoAcknowledgement],
        RECONNECTIONS,
        NEVER_STALE,
    );
    holds_without(&[Rule::NoLeasesBeforeTheProof, Rule::NoRespondersIsNoAcknowledgement], RECONNECTIONS);
    holds_without(&[Rule::DroppedAfterTheProof, Rule::NoRespondersIsNoAcknowledgement], RECONNECTIONS);
}

/// Rules 7 and 8 keep a worker from serving what it may not have been told of. Since rule 9, nothing is answered before
/// it has been told, or its claim has ended: so each makes up for the other, as long as no route is cut.
#[test]
fn rules_7_and_8_or_9_would_be_enough_behind_one_server() {
    holds_without(&[Rule::NoRespondersIsNoAcknowledgement], RECONNECTIONS);
    holds_without(
        &[
            Rule::NoHitsBeforeTheProof,
            Rule::NoLeasesBeforeTheProof,
            Rule::NoFillsBeforeTheProof,
            Rule::ReconnectionsDropEntries,
            Rule::ReconnectionsVoidLeases,
            Rule::GetLeavesBeforeInvalidate,
        ],
        RECONNECTIONS,
    );
}

/// Without this part and without that of rule 9 which makes up for it.
fn breaks_if_no_responders_is_believed(left_out: Rule, scene: Scene) {
    let rules = vec![left_out, Rule::NoRespondersIsNoAcknowledgement];
    breaks_without(rules.leak(), scene, NEVER_STALE);
}

#[test]
fn rule_8_a_get_after_invalidations_have_left_may_be_stale() {
    breaks_if_no_responders_is_believed(Rule::GetLeavesBeforeInvalidate, RECONNECTIONS);
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
    breaks_without(&[Rule::NoRespondersIsNoAcknowledgement, Rule::NoRouteIsCut], PEACE, NEVER_STALE);
}

#[test]
fn rule_9_an_acknowledgement_of_a_worker_that_was_paused_must_not_count() {
    breaks_without(&[Rule::AcknowledgementsNeedARead], PAUSES, NEVER_STALE);
}

#[test]
fn rule_9_a_read_from_before_the_change_may_name_an_owner_that_has_had_a_successor() {
    breaks_without(&[Rule::ReadsBeginAfterTheChange], PAUSES, NEVER_STALE);
}

#[test]
fn rule_9_a_read_that_says_that_nobody_serves_may_be_an_old_one() {
    breaks_without(&[Rule::NobodyIsSureByAWrite], ONE_STOP, NEVER_STALE);
}

#[test]
fn rule_9_whoever_takes_the_claim_after_a_write_from_before_the_change_may_hold_the_old_image() {
    breaks_without(&[Rule::WritesBeginAfterTheChange], ONE_STOP, NEVER_STALE);
}

#[test]
fn rule_9_a_claim_that_a_gateway_ends_before_it_has_run_out_may_be_served_by() {
    breaks_without(&[Rule::GatewaysWait], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_clocks_of_gateways_and_workers_differ_too() {
    breaks_without(&[Rule::GatewaysWaitAMargin], QUIET_STANDBY, NEVER_STALE);
}

#[test]
fn rule_9_an_entry_that_was_lost_while_connections_stand_is_somebody_s() {
    breaks_without(&[Rule::UnknownOwnersAreWaitedFor], TAKEBACKS, NEVER_STALE);
    breaks_without(&[Rule::UnknownOwnersAreWaitedFor], TAKEBACKS, ONE_SERVES);
}

#[test]
fn near_a_copy_must_not_be_served_after_its_lease() {
    breaks_without(&[Rule::CopiesEndWithTheirLease], NEAR, NEVER_STALE);
}

#[test]
fn near_a_lease_must_count_from_before_it_was_asked_for() {
    breaks_without(&[Rule::NearLeasesCountFromBeforeTheRequest], NEAR, NEVER_STALE);
}

#[test]
fn near_clocks_that_differ_need_a_margin() {
    breaks_without(&[Rule::WaitsForLeasesHaveAMargin], NEAR, NEVER_STALE);
}

#[test]
fn near_an_acknowledgement_before_the_holders_have_dropped_their_copies_is_too_early() {
    breaks_without(&[Rule::HoldersAreWaitedFor], NEAR, NEVER_STALE);
}

#[test]
fn near_a_holder_that_is_out_of_reach_may_serve_all_the_same() {
    breaks_without(&[Rule::SilentHoldersHaveNotDropped], NEAR, NEVER_STALE);
}

#[test]
fn near_two_gateways_under_one_number_answer_for_each_other() {
    breaks_without(&[Rule::HoldersAreToldApart], NEAR, NEVER_STALE);
}

#[test]
fn near_a_second_invalidation_must_wait_for_those_whom_the_first_waits_for() {
    breaks_without(&[Rule::HoldersStayUntilTheyHaveDropped], NEAR, NEVER_STALE);
}

#[test]
fn near_an_acknowledgement_must_leave_what_was_granted_after_its_drop() {
    breaks_without(&[Rule::LaterGrantsAreLeft], NEAR_TWICE, NEVER_STALE);
}

#[test]
fn near_a_change_between_looking_up_and_noting_the_holder_passes_it_by() {
    breaks_without(&[Rule::LookingUpAndNotingAreOneStep], NEAR, NEVER_STALE);
}

#[test]
fn near_a_hit_between_seeing_who_holds_the_entry_and_removing_it_passes_by() {
    breaks_without(&[Rule::RemovingAndSeeingWhoHoldsAreOneStep], NEAR, NEVER_STALE);
}

#[test]
fn near_whoever_holds_by_a_fill_must_be_told_too() {
    breaks_without(&[Rule::HoldersByFillsAreNoted], NEAR, NEVER_STALE);
}

#[test]
fn near_a_renewal_after_the_claim_ran_out_may_be_of_a_stale_copy() {
    breaks_without(&[Rule::RenewalsNeedTheClaim], RENEWALS_AND_A_STANDBY, NEVER_STALE);
}

#[test]
fn near_a_renewal_before_the_proof_may_be_of_a_stale_copy() {
    breaks_if_no_responders_is_believed(Rule::RenewalsNeedTheProof, NEAR_CONNECTIONS);
}

#[test]
fn near_a_renewal_of_what_is_not_resident_brings_an_old_copy_back() {
    breaks_without(&[Rule::RenewalsNeedTheTag], NEAR, NEVER_STALE);
}

#[test]
fn near_a_drop_that_overtakes_a_grant_must_spoil_it() {
    breaks_without(&[Rule::DropsSpoilWhatIsAskedFor], NEAR, NEVER_STALE);
}

#[test]
fn near_a_drop_between_the_check_and_the_keeping_must_not_be_missed() {
    breaks_without(&[Rule::CheckingAndKeepingAreOneStep], NEAR, NEVER_STALE);
}

#[test]
fn near_an_evicted_entry_has_holders_all_the_same() {
    breaks_without(&[Rule::HoldersOutliveEntries], NEAR, NEVER_STALE);
}

#[test]
fn near_a_new_connection_finds_the_same_holders() {
    breaks_without(&[Rule::HoldersOutliveConnections], NEAR_CONNECTIONS, NEVER_STALE);
}

#[test]
fn near_a_new_worker_must_wait_for_what_others_have_granted() {
    breaks_without(&[Rule::NewWorkersWait], NEAR_CONNECTIONS, NEVER_STALE);
    breaks_without(&[Rule::NewWorkersWait], NEAR_STANDBY, NEVER_STALE);
}

#[test]
fn near_when_it_is_sure_that_nobody_serves_copies_may_last() {
    breaks_without(&[Rule::NobodyIsWaitedOut], NEAR_CONNECTIONS, NEVER_STALE);
    breaks_without(&[Rule::NobodyIsWaitedOut], NEAR_STANDBY, NEVER_STALE);
}

/// Who is not told is waited for: drops are there so that uploads need not wait for the end of each lease.
/// And a renewal gives time to a copy that its gateway holds, which the drop has removed.
#[test]
fn near_some_parts_of_the_rules_are_kept_for_speed_and_for_clarity() {
    holds_without(&[Rule::HoldersAreTold], NEAR);
    holds_without(&[Rule::DropsSpoilRenewals], NEAR);
    holds_without(&[Rule::DropsSpoilRenewals], NEAR_CLEARS);
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
