//! Who has how much of what there is. Nothing is ever given twice: what is not free cannot be taken.

use std::collections::{BTreeMap, BTreeSet};

use anyserve_core::{Needs, Resources};

use super::{PlaceId, PoolError};

/// Amounts of every resource, in the order of the ledger's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts(Vec<u32>);

/// What one place has, or had before it fell asleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) resources: Resources,
    pub(super) amounts: Amounts,
    gpus: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// Names of the GPUs, each once.
    gpus: Vec<String>,
    /// Names of the resources; the first is [`GPU`].
    names: Vec<String>,
    totals: Amounts,
    free: Amounts,
    free_gpus: BTreeSet<usize>,
    grants: BTreeMap<PlaceId, Grant>,
}

/// What GPUs are called among the other resources.
const GPU: &str = "gpu";

// === impl Amounts ===

impl Amounts {
    pub(super) fn nothing(like: &Self) -> Self {
        Self(vec![0; like.0.len()])
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.iter().all(|amount| *amount == 0)
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own >= other)
    }

    /// Whether both have something of the same resource.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(own, other)| *own > 0 && *other > 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.each(other, u32::saturating_add);
    }

    /// Takes away what is there of `other`. Returns what was lacking.
    pub(super) fn take(&mut self, other: &Self) -> Self {
        let lacking = self.0.iter().zip(&other.0).map(|(own, other)| other.saturating_sub(*own)).collect();
        self.each(other, u32::saturating_sub);
        Self(lacking)
    }

    fn each(&mut self, other: &Self, step: impl Fn(u32, u32) -> u32) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own = step(*own, *other));
    }
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(resources: Resources) -> Self {
        let mut seen = BTreeSet::new();
        let gpus: Vec<_> = resources.gpus.into_iter().filter(|gpu| seen.insert(gpu.clone())).collect();
        let count = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
        let (names, totals): (Vec<_>, Vec<_>) = [(GPU.to_owned(), count)].into_iter().chain(resources.tokens).unzip();
        let totals = Amounts(totals);
        let free_gpus = (0..gpus.len()).collect();
        Self { gpus, names, free: totals.clone(), totals, free_gpus, grants: BTreeMap::new() }
    }

    /// The needs of one worker, by resource.
    ///
    /// # Errors
    /// [`PoolError::TooMuch`] if there is less of something at all.
    pub(super) fn amounts(&self, needs: &Needs) -> Result<Amounts, PoolError> {
        let mut amounts = Amounts::nothing(&self.totals);
        let tokens = needs.tokens.iter().map(|(name, needed)| (self.token(name), name.as_str(), *needed));
        for (at, name, needed) in [(Some(0), GPU, needs.gpus)].into_iter().chain(tokens) {
            let total = at.map_or(0, |at| self.totals.0[at]);
            if needed > total {
                return Err(PoolError::TooMuch { name: name.to_owned(), needed, total });
            }
            if let Some(at) = at {
                amounts.0[at] = needed;
            }
        }
        Ok(amounts)
    }

    fn token(&self, name: &str) -> Option<usize> {
        (1..self.names.len()).find(|at| self.names[*at] == name)
    }

    /// Whether so many times these amounts fit, and each of the single ones beside them.
    ///
    /// # Errors
    /// [`PoolError::Crowded`] with the first resource of which there is less than that at all.
    pub(super) fn check_together<'a>(
        &self,
        fewest: impl Iterator<Item = (u32, &'a Amounts)>,
        singles: impl Iterator<Item = &'a Amounts>,
    ) -> Result<(), PoolError> {
        let mut base = vec![0_u64; self.names.len()];
        for (times, amounts) in fewest {
            base.iter_mut().zip(&amounts.0).for_each(|(sum, amount)| *sum += u64::from(times) * u64::from(*amount));
        }
        let nothing = Amounts::nothing(&self.totals);
        for single in std::iter::once(nothing).chain(singles.cloned()) {
            let wanted = |at: usize| base[at] + u64::from(single.0[at]);
            if let Some(at) = (0..base.len()).find(|at| wanted(*at) > u64::from(self.totals.0[*at])) {
                let (name, total) = (self.names[at].clone(), self.totals.0[at]);
                return Err(PoolError::Crowded { name, needed: wanted(at), total });
            }
        }
        Ok(())
    }

    pub(super) fn free(&self) -> &Amounts {
        &self.free
    }

    pub(super) fn grant(&self, place: PlaceId) -> Option<&Grant> {
        self.grants.get(&place)
    }

    /// Gives a place what it needs; of GPUs those that nobody who sleeps would want back, if there are enough. `None`
    /// changes nothing: not so much is free, or the place has something already.
    pub(super) fn take(&mut self, place: PlaceId, amounts: &Amounts, wanted: &BTreeSet<usize>) -> Option<&Grant> {
        if !self.free.covers(amounts) || self.grants.contains_key(&place) {
            return None;
        }
        let mut gpus: Vec<_> = self.free_gpus.iter().copied().collect();
        gpus.sort_by_key(|gpu| wanted.contains(gpu));
        gpus.truncate(usize::try_from(amounts.0[0]).unwrap_or(usize::MAX));
        let names = self.names.iter().zip(&amounts.0).skip(1).filter(|(_, amount)| **amount > 0);
        let tokens = names.map(|(name, amount)| (name.clone(), *amount)).collect();
        let resources = Resources { gpus: gpus.iter().map(|gpu| self.gpus[*gpu].clone()).collect(), tokens };
        Some(self.book(place, Grant { resources, amounts: amounts.clone(), gpus }))
    }

    /// Whether a place could have the very same again.
    pub(super) fn has_same(&self, grant: &Grant) -> bool {
        self.free.covers(&grant.amounts) && grant.gpus.iter().all(|gpu| self.free_gpus.contains(gpu))
    }

    /// Gives a place the very same that it had before. `None` changes nothing.
    pub(super) fn take_same(&mut self, place: PlaceId, grant: &Grant) -> Option<&Grant> {
        let free = self.has_same(grant) && !self.grants.contains_key(&place);
        free.then_some(())?;
        Some(self.book(place, grant.clone()))
    }

    fn book(&mut self, place: PlaceId, grant: Grant) -> &Grant {
        self.free.take(&grant.amounts);
        for gpu in &grant.gpus {
            self.free_gpus.remove(gpu);
        }
        self.grants.entry(place).or_insert(grant)
    }

    /// What a place had is free again.
    pub(super) fn give_back(&mut self, place: PlaceId) -> Option<Grant> {
        let grant = self.grants.remove(&place)?;
        self.free.add(&grant.amounts);
        self.free_gpus.extend(&grant.gpus);
        Some(grant)
    }

    /// Every resource, how much there is of it, and how much places have.
    pub(super) fn used(&self) -> Vec<(String, u64, u64)> {
        let row = |at: usize| {
            (self.names[at].clone(), self.totals.0[at].into(), u64::from(self.totals.0[at] - self.free.0[at]))
        };
        (0..self.names.len()).filter(|at| *at > 0 || self.totals.0[0] > 0).map(row).collect()
    }
}

// === impl Grant ===

impl Grant {
    /// Its GPUs, by their places in the ledger.
    pub(super) fn gpus(&self) -> &[usize] {
        &self.gpus
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resources(gpus: u32, tokens: u32) -> Resources {
        Resources {
            gpus: (0..gpus).map(|gpu| format!("GPU-{gpu}")).collect(),
            tokens: BTreeMap::from([("token".to_owned(), tokens)]),
        }
    }

    fn needs(gpus: u32, tokens: u32) -> Needs {
        Needs { gpus, tokens: BTreeMap::from([("token".to_owned(), tokens)]) }
    }

    #[test]
    fn one_less_and_all_that_there_is_are_given_and_one_more_is_not() {
        for (needed, fits) in [(1, true), (2, true), (3, false)] {
            let ledger = Ledger::new(resources(2, 2));
            assert_eq!(ledger.amounts(&needs(needed, 0)).is_ok(), fits);
            assert_eq!(ledger.amounts(&needs(0, needed)).is_ok(), fits);
        }
        let mut unknown = needs(0, 0);
        unknown.tokens.insert("licence".into(), 1);
        let error = Ledger::new(resources(2, 2)).amounts(&unknown).unwrap_err().to_string();
        assert!(error.contains("1 licence") && error.contains("there are 0"), "{error}");
    }

    #[test]
    fn the_same_gpus_come_back_only_while_nobody_else_has_them() {
        let mut ledger = Ledger::new(resources(2, 0));
        let one = ledger.amounts(&needs(1, 0)).unwrap();
        ledger.take(PlaceId(1), &one, &BTreeSet::new()).unwrap();
        let slept = ledger.give_back(PlaceId(1)).unwrap();
        assert_eq!(slept.resources.gpus, ["GPU-0"]);
        let other = ledger.take(PlaceId(2), &one, &slept.gpus().iter().copied().collect()).unwrap();
        assert_eq!(other.resources.gpus, ["GPU-1"], "the other one, as long as there is another");
        assert!(ledger.has_same(&slept));
        ledger.take(PlaceId(3), &one, &BTreeSet::new()).unwrap();
        assert_eq!(ledger.take_same(PlaceId(1), &slept), None);
        ledger.give_back(PlaceId(3));
        assert_eq!(ledger.take_same(PlaceId(1), &slept).unwrap().resources.gpus, ["GPU-0"]);
    }

    #[test]
    fn a_gpu_that_is_named_twice_is_there_once() {
        let twice = Resources { gpus: vec!["a".into(), "a".into()], ..Resources::default() };
        assert_eq!(Ledger::new(twice).used(), [("gpu".to_owned(), 1, 0)]);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_given_back_nothing_is_given_twice(
            steps in prop::collection::vec((0_u32..6, 0_u32..3, 0_u32..4, any::<bool>()), 1..60)
        ) {
            let mut ledger = Ledger::new(resources(3, 4));
            let mut slept = BTreeMap::new();
            for (place, gpus, tokens, takes) in steps {
                let place = PlaceId(place);
                if takes {
                    let amounts = ledger.amounts(&needs(gpus, tokens)).unwrap();
                    match slept.get(&place) {
                        Some(grant) => drop(ledger.take_same(place, grant).cloned()),
                        None => drop(ledger.take(place, &amounts, &BTreeSet::new()).cloned()),
                    }
                } else if let Some(grant) = ledger.give_back(place) {
                    slept.insert(place, grant);
                }
                let all: Vec<_> = ledger.grants.values().flat_map(|grant| grant.resources.gpus.clone()).collect();
                prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "one GPU for two");
                let tokens: u32 = ledger.grants.values().filter_map(|grant| grant.resources.tokens.get("token")).sum();
                prop_assert!(tokens <= 4);
                let used: Vec<_> = ledger.used().into_iter().map(|(_, _, used)| used).collect();
                prop_assert_eq!(used, [all.len() as u64, u64::from(tokens)]);
            }
        }
    }
}
