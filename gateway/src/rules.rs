//! The rules of the pure machines that may be left out: by a property test, to prove that it notices; by a seeded
//! bug, to prove that the drill does. One mechanism for both: a machine asks its `R: Rules`. Every build that
//! serves clients uses [`Faithful`], and the compiler removes the questions. Never read from configuration.

use sluice_service::seeded::{self, Bug};

/// A rule of the machines. Those of delivery were each found necessary by a schedule that failed without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A hint raises `known`, never `head`.
    HintRaisesOnlyKnown,
    /// `known > head` leads to a Read.
    TailRepair,
    /// Only the message after `head` is passed on.
    NoGapPassed,
    /// Positions that no message will fill are told.
    SkipTold,
    /// Live only where `cursor = head`.
    LiveOnlyAtHead,
    /// A run that found the queue full is made up for by a hand-over.
    OverflowHandedOver,
    /// The room refuses a page of another epoch.
    RoomPageEpoch,
    /// A subscription refuses a page of another epoch.
    SubscriptionPageEpoch,
    /// A view's head follows runs and hand-overs only.
    ViewHeadIgnoresHints,
    /// An epoch is believed only from a call begun since the room took its own.
    EpochFromOwnCallsOnly,
    /// While a hand-over is owed no run goes to that shard.
    HandOverBeforeRuns,
    /// A shared page that brought nothing new is followed by an unshared ask.
    UnsharedAsk,
    /// Adding and removing a room's interest are never in flight together.
    AddNeverBesideRemove,
    /// A Subscribe answers only the `sub`s that arrived before it was sent.
    AnswersOnlyEarlierSubs,
    /// A hand-over with a higher head takes everybody out of Live.
    LiveLeavesAtJump,
    /// A `sub` is judged by `known`, not by `head`.
    SubJudgedByKnown,
    /// A page asked for is given up at the asker's own deadline.
    AskDeadline,
    /// Interest that could not be stored is announced again.
    InterestRepeated,
    /// A view's ring is cleared when its head jumps.
    RingClearedAtJump,
    /// Who is at the head is Live, whatever the queue holds.
    LiveWhateverTheQueue,
    /// Only a subscriber that was Live is cut short for being far behind.
    CutShortAfterLive,
    /// Only the page waited for is taken.
    OnlyTheAskWaitedFor,
    /// The heads of rooms are asked, and what a Subscribe says of the head is listened to.
    HeadsAsked,
    /// A live subscriber whose queue is full reads what it misses.
    FullQueueLeavesLive,
    /// Another history is told to everybody who was answered in the former one.
    EpochChangeTold,
    /// A page takes a subscription as far as its messages reach.
    PageReachesItsEnd,
    /// A lane answers what is fenced instead of sending it.
    Fence,
    /// It looks at the fence again when a batch is formed.
    FenceAtForming,
    /// A batch that failed is tried again in its place.
    RetryInPlace,
    /// A retry has the keys of the first try.
    RetryWithSameKeys,
}

impl Rule {
    /// Those of the delivery machines, in the order of their discriminants.
    pub const DELIVERY: [Self; 22] = [
        Self::HintRaisesOnlyKnown,
        Self::TailRepair,
        Self::NoGapPassed,
        Self::SkipTold,
        Self::LiveOnlyAtHead,
        Self::OverflowHandedOver,
        Self::RoomPageEpoch,
        Self::SubscriptionPageEpoch,
        Self::ViewHeadIgnoresHints,
        Self::EpochFromOwnCallsOnly,
        Self::HandOverBeforeRuns,
        Self::UnsharedAsk,
        Self::AddNeverBesideRemove,
        Self::AnswersOnlyEarlierSubs,
        Self::LiveLeavesAtJump,
        Self::SubJudgedByKnown,
        Self::AskDeadline,
        Self::InterestRepeated,
        Self::RingClearedAtJump,
        Self::LiveWhateverTheQueue,
        Self::CutShortAfterLive,
        Self::OnlyTheAskWaitedFor,
    ];
}

/// Which rules a machine keeps.
pub trait Rules {
    /// The rule left out, in tests.
    const WITHOUT: Option<Rule>;

    /// Whether `rule` is kept. A constant in every build.
    #[inline(always)]
    #[must_use]
    fn keeps(rule: Rule) -> bool {
        match Self::WITHOUT {
            None => true,
            Some(without) => without as u8 != rule as u8,
        }
    }
}

/// Keeps all rules.
#[derive(Debug, Clone, Copy)]
pub struct Faithful;

impl Rules for Faithful {
    const WITHOUT: Option<Rule> = None;

    #[inline(always)]
    fn keeps(rule: Rule) -> bool {
        !match rule {
            Rule::TailRepair => seeded::is(Bug::NoGapRepair),
            Rule::HeadsAsked => seeded::is(Bug::NoTailRepair),
            Rule::HintRaisesOnlyKnown => seeded::is(Bug::OkRaisesHead),
            Rule::SkipTold => seeded::is(Bug::SkipNotTold),
            Rule::FullQueueLeavesLive => seeded::is(Bug::FullQueueDrops),
            Rule::EpochChangeTold => seeded::is(Bug::EpochIgnored),
            Rule::PageReachesItsEnd => seeded::is(Bug::HistoryBeforeInterest),
            Rule::RetryInPlace => seeded::is(Bug::FreePipelining),
            Rule::RetryWithSameKeys => seeded::is(Bug::RetryWithNewKey),
            Rule::NoGapPassed
            | Rule::LiveOnlyAtHead
            | Rule::OverflowHandedOver
            | Rule::RoomPageEpoch
            | Rule::SubscriptionPageEpoch
            | Rule::ViewHeadIgnoresHints
            | Rule::EpochFromOwnCallsOnly
            | Rule::HandOverBeforeRuns
            | Rule::UnsharedAsk
            | Rule::AddNeverBesideRemove
            | Rule::AnswersOnlyEarlierSubs
            | Rule::LiveLeavesAtJump
            | Rule::SubJudgedByKnown
            | Rule::AskDeadline
            | Rule::InterestRepeated
            | Rule::RingClearedAtJump
            | Rule::LiveWhateverTheQueue
            | Rule::CutShortAfterLive
            | Rule::OnlyTheAskWaitedFor
            | Rule::Fence
            | Rule::FenceAtForming => false,
        }
    }
}
