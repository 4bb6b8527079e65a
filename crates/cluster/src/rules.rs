//! The upgrade rules of a fleet: which lists of rules there are, who has each, and which may apply to a query.
//!
//! ```text
//!  acquire, release ──► one book per different list of rules, with the number of its users
//!  open, close ───────► the users that any request may go to
//!  leads ─────────────► pairs of the query ──► books with a rule that asks for one ──► what each makes of the query
//! ```
//!
//! Replicas of one app have one book. What a rule makes of a query is the replica's to decide: this only tells who is
//! likely to make something of it.

use std::collections::HashMap;

use anyserve_core::{Op, Query, Upgrades};
use slab::Slab;

use crate::hash::place;
use crate::index::{narrow, wide};

/// Books that are tried with one query at most.
pub(crate) const MAX_LEADS: usize = 64;

/// The lists of rules.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    books: Slab<Book>,
    numbers: HashMap<Upgrades, u32>,
    /// Books by the first pair, key and value, that one of their rules asks for.
    by_pair: HashMap<String, HashMap<String, Vec<u32>>>,
}

/// A list of rules.
#[derive(Debug)]
struct Book {
    rules: Upgrades,
    users: u32,
    /// Slots of its users that any request may go to, in no order.
    open: Vec<u32>,
}

/// A book with a rule that applies to a query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lead {
    pub(crate) book: u32,
    /// What the rule makes of the query.
    pub(crate) query: Query,
}

// === impl Rules ===

impl Rules {
    /// One more has these rules. The number is the same for equal lists; none is no list.
    pub(crate) fn acquire(&mut self, rules: &Upgrades) -> Option<u32> {
        if rules.is_empty() {
            return None;
        }
        if let Some(number) = self.numbers.get(rules) {
            self.books[wide(*number)].users += 1;
            return Some(*number);
        }
        let number = narrow(self.books.insert(Book { rules: rules.clone(), users: 1, open: Vec::new() }));
        self.numbers.insert(rules.clone(), number);
        for (key, value) in first_pairs(rules) {
            let books = self.by_pair.entry(key.clone()).or_default().entry(value.clone()).or_default();
            if !books.contains(&number) {
                books.push(number);
            }
        }
        Some(number)
    }

    /// One fewer has them. Whoever goes was closed before.
    pub(crate) fn release(&mut self, number: u32) {
        let book = &mut self.books[wide(number)];
        book.users -= 1;
        if book.users > 0 {
            return;
        }
        let book = self.books.remove(wide(number));
        self.numbers.remove(&book.rules);
        for (key, value) in first_pairs(&book.rules) {
            self.unlist(number, key, value);
        }
    }

    /// The rules with this number, which somebody has.
    pub(crate) fn rules(&self, number: u32) -> &Upgrades {
        &self.books[wide(number)].rules
    }

    /// Any request may go to this user of a book from now on. Its place is told, for [`close`](Self::close).
    pub(crate) fn open(&mut self, number: u32, slot: u32) -> usize {
        let open = &mut self.books[wide(number)].open;
        open.push(slot);
        open.len() - 1
    }

    /// No request goes to the user at this place any more. The slot of the one that has its place now is told.
    pub(crate) fn close(&mut self, number: u32, at: usize) -> Option<u32> {
        let open = &mut self.books[wide(number)].open;
        open.swap_remove(at);
        open.get(at).copied()
    }

    /// The users of a book that any request may go to.
    pub(crate) fn users(&self, number: u32) -> &[u32] {
        &self.books[wide(number)].open
    }

    /// The books with a rule that applies to a query and with a user that is open, another one first at every turn.
    pub(crate) fn leads(&self, query: &Query, turn: u64) -> Vec<Lead> {
        if self.books.is_empty() {
            return Vec::new();
        }
        let some = |(key, value): (&str, &str)| window(self.with_pair(key, value), turn);
        let mut books: Vec<u32> = pairs_of(query).flat_map(some).collect();
        books.sort_unstable();
        books.dedup();
        let books: Vec<u32> = window(&books, turn).collect();
        books.into_iter().filter_map(|book| self.lead(book, query)).collect()
    }

    fn lead(&self, book: u32, query: &Query) -> Option<Lead> {
        let Book { rules, open, .. } = &self.books[wide(book)];
        if open.is_empty() {
            return None;
        }
        rules.apply(query).map(|query| Lead { book, query })
    }

    fn with_pair(&self, key: &str, value: &str) -> &[u32] {
        self.by_pair.get(key).and_then(|by_value| by_value.get(value)).map_or(&[], Vec::as_slice)
    }

    fn unlist(&mut self, number: u32, key: &str, value: &str) {
        let Some(by_value) = self.by_pair.get_mut(key) else { return };
        if let Some(books) = by_value.get_mut(value) {
            books.retain(|book| *book != number);
            if books.is_empty() {
                by_value.remove(value);
            }
        }
        if by_value.is_empty() {
            self.by_pair.remove(key);
        }
    }
}

/// These books from the place on whose turn it is, all of them unless they are too many.
fn window(books: &[u32], turn: u64) -> impl Iterator<Item = u32> + '_ {
    let start = if books.is_empty() { 0 } else { place(turn, books.len()) };
    books[start..].iter().chain(&books[..start]).take(MAX_LEADS).copied()
}

fn first_pairs(rules: &Upgrades) -> impl Iterator<Item = (&String, &String)> {
    rules.iter().filter_map(|rule| rule.asks_for().first().map(|(key, value)| (key, value)))
}

/// The pairs that a rule may ask for and this query says.
fn pairs_of(query: &Query) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
    match query {
        Query::Model(name) => Box::new(["model", "type"].into_iter().map(move |key| (key, name.as_str()))),
        Query::All(conditions) => Box::new(conditions.iter().filter_map(|one| match &one.op {
            Op::Equals(value) => Some((one.key.as_str(), value.as_str())),
            _ => None,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(texts: &[&str]) -> Upgrades {
        Upgrades::parse(texts.iter().copied()).unwrap()
    }

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn equal_lists_are_one_book_until_its_last_user_goes() {
        let mut known = Rules::default();
        let (one, other) = (rules(&["a=1 -> a=2"]), rules(&["a=1 -> a=3"]));
        let number = known.acquire(&one).unwrap();
        assert_eq!((known.acquire(&one), known.acquire(&Upgrades::default())), (Some(number), None));
        assert_ne!(known.acquire(&other), Some(number));
        known.open(number, 7);
        known.release(number);
        assert_eq!(known.leads(&query("a=1,b=2"), 0), [Lead { book: number, query: query("a=2,b=2") }]);
        known.close(number, 0);
        known.release(number);
        assert!(known.leads(&query("a=1"), 0).is_empty() && !known.numbers.contains_key(&one));
    }

    #[test]
    fn only_books_with_a_rule_that_applies_and_somebody_open_lead_anywhere() {
        let mut known = Rules::default();
        let both = known.acquire(&rules(&["a=1,b=1 -> c=1", "type=x -> type=y"])).unwrap();
        let place = known.open(both, 0);
        assert_eq!(known.leads(&Query::model("x"), 0), [Lead { book: both, query: query("type=y") }]);
        assert!(known.leads(&query("a=1"), 0).is_empty() && known.leads(&query("b=1"), 0).is_empty());
        assert!(known.leads(&query("type!=x"), 0).is_empty() && known.leads(&Query::all(vec![]), 0).is_empty());
        known.close(both, place);
        assert!(known.leads(&Query::model("x"), 0).is_empty());
    }

    #[test]
    fn of_more_books_than_are_tried_each_has_its_turn() {
        for count in [MAX_LEADS - 1, MAX_LEADS, MAX_LEADS + 1] {
            let mut known = Rules::default();
            for number in 0..count {
                let book = known.acquire(&rules(&[&format!("a=1 -> a=x{number}")])).unwrap();
                known.open(book, 0);
            }
            let tried = |turn: u64| known.leads(&query("a=1"), turn);
            assert_eq!(tried(0).len(), count.min(MAX_LEADS));
            let mut seen: Vec<_> = (0..2_000).flat_map(tried).map(|lead| lead.book).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count);
        }
    }

    proptest! {
        /// Books come and go, and what is found is what all of them one by one say.
        #[test]
        fn what_is_indexed_is_what_applies(changes in prop::collection::vec((0..6_u8, 0..3_u8, any::<bool>()), 1..40)) {
            let texts = |number: u8| [format!("a={} -> a=x", number % 3), format!("b=1,c={number} -> d={number}")];
            let mut known = Rules::default();
            let mut held: Vec<(u8, u32)> = Vec::new();
            for (number, asked, comes) in changes {
                if comes {
                    let book = known.acquire(&rules(&texts(number).each_ref().map(String::as_str))).unwrap();
                    known.open(book, 0);
                    held.push((number, book));
                } else if let Some((_, book)) = held.pop() {
                    known.close(book, 0);
                    known.release(book);
                }
                for text in [format!("a={asked}"), format!("b=1,c={asked}"), "b=1".to_owned()] {
                    let query = query(&text);
                    let mut found: Vec<_> = known.leads(&query, 0).into_iter().map(|lead| (lead.book, lead.query)).collect();
                    let mut expected: Vec<_> = held.iter().filter_map(|(_, book)| {
                        known.rules(*book).apply(&query).map(|query| (*book, query))
                    }).collect();
                    expected.sort_by_key(|(book, _)| *book);
                    expected.dedup();
                    found.sort_by_key(|(book, _)| *book);
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
