//! How a query is worked out: where it begins, and in which order it goes on.

use std::borrow::Cow;

use super::postings::Postings;
use super::set::Set;
use crate::Op;

/// The sets that a query comes to.
pub(super) struct Plan<'a> {
    /// Every match is in it.
    pub(super) start: Cow<'a, Set>,
    /// What else a match satisfies.
    pub(super) terms: Vec<Term<'a>>,
    /// Who has a key that a match may have or not, although it is mentioned; one set for every such key.
    pub(super) denied: Vec<&'a Set>,
}

/// A condition on a key that somebody has.
pub(super) struct Term<'a> {
    pub(super) postings: &'a Postings,
    pub(super) op: &'a Op,
}

// === impl Plan ===

impl<'a> Plan<'a> {
    /// A query without matches.
    pub(super) fn of_nothing() -> Self {
        Self { start: Cow::default(), terms: Vec::new(), denied: Vec::new() }
    }

    /// Begins with the smallest set at hand, if there is any, and asks what is wanted before what is not: each leaves
    /// fewer to look at.
    pub(super) fn new(all: &'a Set, mut terms: Vec<Term<'a>>, denied: Vec<&'a Set>) -> Self {
        let sets = terms.iter().enumerate().filter_map(|(place, term)| Some((place, term.postings.at_hand(term.op)?)));
        let smallest = sets.min_by_key(|(_, set)| set.few().unwrap_or(u64::MAX));
        let start = smallest.map(|(place, set)| {
            terms.remove(place);
            set
        });
        terms.sort_by_key(|term| term.op.is_negative());
        Self { start: start.unwrap_or(Cow::Borrowed(all)), terms, denied }
    }

    /// What satisfies all of it.
    pub(super) fn matches(&self) -> Set {
        let mut found = self.start.clone().into_owned();
        for term in &self.terms {
            if found.is_empty() {
                break;
            }
            term.postings.narrow(&mut found, term.op);
        }
        found
    }

    /// Groups matches by how many of the denied keys they have at least: none, one, and so on.
    pub(super) fn by_denied(&self, matches: Set) -> Vec<Set> {
        let mut groups = vec![matches];
        for there in &self.denied {
            for denied in (0..groups.len()).rev() {
                let mut one_more = groups[denied].clone();
                one_more.keep(there);
                match groups.get_mut(denied + 1) {
                    Some(group) => group.add(&one_more),
                    None if one_more.is_empty() => {}
                    None => groups.push(one_more),
                }
            }
        }
        groups
    }
}
