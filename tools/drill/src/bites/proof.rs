//! What came of the runs of a proof, and how it is shown: a line for each run as it ends, a table of all at the end.
//! It runs nothing.

use std::collections::BTreeMap;
use std::fmt;

use sluice_judge::verdict::AnomalyKind;
use sluice_program::output::{self, Unwritten};

use super::table::{Bite, Setup};

/// How one run ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Ran {
    /// What is wrong and how often, most first.
    pub kinds: Vec<(AnomalyKind, usize)>,
    /// Why nothing can be concluded.
    pub why: Option<String>,
    pub seconds: f32,
}

impl Ran {
    pub(super) fn is_green(&self) -> bool {
        self.kinds.is_empty() && self.why.is_none()
    }

    /// How often it showed what the bug must show.
    pub(super) fn shown(&self, bite: &Bite) -> usize {
        let shown = self.kinds.iter().filter(|(kind, _)| bite.shows.contains(kind));
        shown.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen: Vec<String> =
            self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        if seen.is_empty() {
            seen.push("nothing".to_owned());
        }
        seen.extend(self.why.iter().map(|why| format!("inconclusive: {why}")));
        f.write_str(&seen.join(", "))
    }
}

/// A ground: a setup with what is switched off on it.
type Ground = (&'static str, &'static [&'static str]);

/// The runs so far.
#[derive(Debug)]
pub(super) struct Proof {
    /// How many there will be.
    total: usize,
    done: usize,
    /// By ground, then seed.
    grounds: BTreeMap<Ground, BTreeMap<u64, Ran>>,
    /// By bug: caught with each seed or not.
    bites: BTreeMap<&'static str, Vec<(bool, Ran)>>,
}

impl Proof {
    /// Of these bites, with so many seeds.
    pub(super) fn begin(bites: &[Bite], seeds: usize) -> Result<Self, Unwritten> {
        let mut grounds: Vec<Ground> = bites.iter().map(ground).collect();
        grounds.sort_unstable();
        grounds.dedup();
        let total = (bites.len() + grounds.len()) * seeds;
        output::line(format_args!(
            "{:>9}  {:<28} {:<16} {:>6} {:>5}  seen",
            "run", "bug", "setup", "seed", "s"
        ))?;
        Ok(Self { total, done: 0, grounds: BTreeMap::new(), bites: BTreeMap::new() })
    }

    /// Whether the ground of this bite was green with this seed; `None`: it was not tried yet.
    pub(super) fn is_ground_green(&self, bite: &Bite, seed: u64) -> Option<bool> {
        self.grounds.get(&ground(bite)).and_then(|ran| ran.get(&seed)).map(Ran::is_green)
    }

    /// The ground of a bite was tried.
    pub(super) fn ground(&mut self, bite: &Bite, seed: u64, ran: Ran) -> Result<(), Unwritten> {
        let note = if ran.is_green() { "" } else { "  NOT GREEN, so it proves nothing" };
        self.show(&format!("- {}", bite.beside.join(", ")), &bite.setup, seed, &ran, note)?;
        self.grounds.entry(ground(bite)).or_default().insert(seed, ran);
        Ok(())
    }

    /// A bite was tried, on a ground that was tried before; whether the bug was caught.
    pub(super) fn bite(&mut self, bite: &Bite, seed: u64, ran: Ran) -> Result<bool, Unwritten> {
        let is_seen = ran.shown(bite) > 0;
        let is_caught = is_seen && self.is_ground_green(bite, seed) == Some(true);
        let expected: Vec<&str> = bite.shows.iter().map(|kind| kind.name()).collect();
        let note =
            if is_seen { String::new() } else { format!("  ESCAPED, expected {}", expected.join(" or ")) };
        self.show(bite.bug, &bite.setup, seed, &ran, &note)?;
        self.bites.entry(bite.bug).or_default().push((is_caught, ran));
        Ok(is_caught)
    }

    fn show(&mut self, bug: &str, setup: &Setup, seed: u64, ran: &Ran, note: &str) -> Result<(), Unwritten> {
        self.done += 1;
        let run = format!("{}/{}", self.done, self.total);
        let (setup, seconds) = (setup.name, ran.seconds);
        output::line(format_args!("{run:>9}  {bug:<28} {setup:<16} {seed:>6} {seconds:>5.0}  {ran}{note}"))
    }

    /// All of it, a line for each ground and each bug, as a table of a document; whether every bug was caught each time.
    pub(super) fn end(&self, bites: &[Bite]) -> Result<bool, Unwritten> {
        output::line(format_args!("\n| Bug | Setup | Caught | Seen, least to most | Seconds |"))?;
        output::line(format_args!("|---|---|---|---|---|"))?;
        for ((setup, beside), ran) in &self.grounds {
            let green = ran.values().filter(|ran| ran.is_green()).count();
            let beside = if beside.is_empty() { String::new() } else { format!(", {}", beside.join(", ")) };
            let seconds = span(ran.values().map(|ran| ran.seconds.round() as usize));
            output::line(format_args!(
                "| none{beside} | {setup} | green {green} of {} | | {seconds} |",
                ran.len()
            ))?;
        }
        let mut all = 0;
        for bite in bites {
            let Some(ran) = self.bites.get(bite.bug) else { continue };
            let caught = ran.iter().filter(|(is_caught, _)| *is_caught).count();
            all += usize::from(caught == ran.len());
            let shown = span(ran.iter().map(|(_, ran)| ran.shown(bite)));
            let seconds = span(ran.iter().map(|(_, ran)| ran.seconds.round() as usize));
            let (bug, setup, kinds) = (bite.bug, bite.setup.name, bite.shows.iter().map(|kind| kind.name()));
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            output::line(format_args!(
                "| `{bug}` | {setup} | {caught} of {} | {shown} {kinds} | {seconds} |",
                ran.len()
            ))?;
        }
        output::line(format_args!("{all} of {} caught", bites.len()))?;
        Ok(all == bites.len())
    }
}

fn ground(bite: &Bite) -> Ground {
    (bite.setup.name, bite.beside)
}

/// The least and the most of some numbers: `3`, `3–9`.
fn span(numbers: impl Iterator<Item = usize>) -> String {
    let (least, most) = numbers.fold((usize::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
    match (least, most) {
        (least, most) if least > most => "-".to_owned(),
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least}–{most}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::BITES;
    use super::*;

    fn ran(kinds: &[(AnomalyKind, usize)]) -> Ran {
        Ran { kinds: kinds.to_vec(), why: None, seconds: 1.0 }
    }

    #[test]
    fn a_bug_is_caught_only_on_a_green_ground_by_what_it_must_show_with_each_seed() {
        let bite = BITES.iter().find(|bite| bite.shows == [AnomalyKind::Gap]).unwrap();
        let (bites, mut proof) = ([*bite], Proof::begin(&[*bite], 4).unwrap());
        assert_eq!(proof.total, 8);
        assert_eq!(proof.is_ground_green(bite, 1), None);
        for (seed, ground, bitten, is_caught) in [
            (1, ran(&[]), ran(&[(AnomalyKind::Gap, 3), (AnomalyKind::Leak, 1)]), true),
            (2, ran(&[]), ran(&[(AnomalyKind::Leak, 3)]), false),
            (3, ran(&[(AnomalyKind::Leak, 1)]), ran(&[(AnomalyKind::Gap, 3)]), false),
            (4, Ran { why: Some("no load".into()), ..ran(&[]) }, ran(&[(AnomalyKind::Gap, 3)]), false),
        ] {
            proof.ground(bite, seed, ground).unwrap();
            assert_eq!(proof.bite(bite, seed, bitten).unwrap(), is_caught, "seed {seed}");
        }
        assert!(!proof.end(&bites).unwrap());
        let mut proof = Proof::begin(&bites, 1).unwrap();
        proof.ground(bite, 9, ran(&[])).unwrap();
        proof.bite(bite, 9, ran(&[(AnomalyKind::Gap, 3)])).unwrap();
        assert!(proof.end(&bites).unwrap());
    }

    #[test]
    fn spans_are_as_short_as_they_can_be() {
        let said = |numbers: &[usize]| span(numbers.iter().copied());
        assert_eq!([said(&[]), said(&[3, 3]), said(&[9, 3, 4])], ["-", "3", "3–9"]);
    }
}
