//! The contract as cases, each for any store that has a [`Rig`](crate::rig::Rig), and the lists that run them.

pub mod contract;
pub mod delayed;
pub mod errors;
pub mod listing;
pub mod reading;
pub mod revocations;
pub mod storm;
pub mod upkeep;

/// Tests for one rig: the named cases of one module of [`cases`](crate::cases).
macro_rules! cases {
    ($rig:ty, $module:ident: $($case:ident),+ $(,)?) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let mut rig = <$rig as crate::rig::Rig>::start().await;
                    crate::cases::$module::$case(&mut rig).await;
                }
            )+
        }
    };
}

/// What every store does, in memory too.
macro_rules! contract {
    ($rig:ty) => {
        cases!($rig, contract:
            numbers_and_duplicates,
            one_key_twice_in_a_group,
            what_was_stored_is_what_is_read,
            too_late_stores_nothing,
            many_groups_at_once_are_each_whole,
            closed_is_said,
        );
        cases!($rig, delayed:
            what_is_due_is_published_once_with_its_key,
            what_is_sent_again_finds_the_first,
            a_cancel_is_final_and_can_be_sent_again,
            a_delay_that_comes_too_late_stores_nothing,
            one_step_fires_no_more_than_its_limit,
            no_more_of_a_user_wait_than_may,
            no_more_wait_by_an_api_key_than_may_whoever_sends_them,
            a_key_that_waits_is_not_published_at_once,
            a_key_is_kept_or_published_and_never_both,
            d5_whatever_is_cancelled_is_not_fired_and_the_rest_once,
        );
        cases!($rig, revocations:
            a_later_revocation_takes_a_new_place_and_nothing_back,
            pages_of_revocations_miss_none_while_many_revoke,
            a_user_that_was_never_revoked_is_not_found,
        );
        cases!($rig, listing:
            rooms_are_listed_by_prefix_in_pages,
            what_waits_in_a_room_is_listed_in_pages,
        );
        cases!($rig, storm: no_storm_breaks_the_table_or_an_answer);
    };
}

/// What every store does whose tables can be reached past it.
macro_rules! suite {
    ($rig:ty) => {
        contract!($rig);
        cases!($rig, reading:
            pages_and_history,
            the_budget_cuts_where_reading_can_go_on,
            a_page_is_one_snapshot,
            b5_the_oldest_kept_is_said,
        );
        cases!($rig, upkeep:
            notes_are_owed_until_noted,
            old_notes_are_dropped_in_pages,
            age_and_count_trim_from_the_oldest_in_small_steps,
            b6_nothing_younger_than_dedupe_min_goes_whatever_the_policy_says,
            b7_an_emptied_room_goes_on_where_it_was,
            a_clock_that_ran_backwards_makes_no_hole,
            retention_comes_past_every_room_however_many_there_are,
        );
        cases!($rig, errors:
            a_poison_item_is_told_from_a_bad_day,
            a_poison_item_harms_no_other_group,
            a_key_stored_twice_would_be_an_alarm_not_the_senders_fault,
            a_lock_held_too_long_rolls_back_for_certain,
            a11_not_after_is_judged_under_the_locks,
            a_cancelled_publish_leaves_no_transaction_behind,
            close_does_not_wait_for_ever,
            the_epoch_stays_over_a_crash,
        );
    };
}
