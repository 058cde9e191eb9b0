//! The lines of free payments: in each those that may go to the same processors in the same order, so
//! that one that has to wait is in nobody's way but of those who have to wait as well.
//!
//! The invariant: a line is ordered by when its payments were accepted. There are few lines: one for all
//! amounts with the contest's two, and one for guests.

use super::agenda::Agenda;
use super::case::Case;
use crate::base::clock::Moment;
use crate::payments::Processor;
use crate::payments::terms::{Offers, Order};
use std::collections::VecDeque;

/// See the module.
pub struct Line {
    /// Whether its payments are those of the absent peer.
    pub guest: bool,
    order: Order,
    /// Nothing has gone wrong with these, the oldest first.
    pub fresh: VecDeque<Case>,
    /// Sent in vain too often to go before others.
    pub later: Agenda<Case>,
}

#[derive(Default)]
pub struct Lines(Vec<Line>);

impl Lines {
    pub fn as_slice(&self) -> &[Line] {
        &self.0
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut Line> {
        self.0.get_mut(index)
    }

    /// The one that a payment belongs to.
    pub fn of(&mut self, case: &Case, offers: &Offers) -> &mut Line {
        let (guest, order) = (case.payment.guest, offers.cheapest_first(case.payment.amount));
        let index = self.0.iter().position(|it| it.guest == guest && it.order == order);
        let index = index.unwrap_or_else(|| {
            let (fresh, later) = (VecDeque::new(), Agenda::default());
            self.0.push(Line { guest, order, fresh, later });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// All that wait in them.
    pub fn iter(&self) -> impl Iterator<Item = &Case> + Clone {
        self.0.iter().flat_map(|line| line.fresh.iter().chain(line.later.iter()))
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|line| line.fresh.len() + line.later.len()).sum()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// All that wait in them: the fresh ones, and the others with when they are due.
    pub fn into_parts(self) -> (Vec<Case>, Vec<(Moment, Case)>) {
        let (mut fresh, mut later) = (Vec::new(), Vec::new());
        for mut line in self.0 {
            fresh.extend(line.fresh);
            later.extend(line.later.take());
        }
        (fresh, later)
    }

    /// Lets go of what is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&Case) -> bool) {
        for line in &mut self.0 {
            line.fresh.retain(&mut keep);
            let kept: Vec<_> = line.later.take().filter(|(_, case)| keep(case)).collect();
            kept.into_iter().for_each(|(due, case)| line.later.push(due, case));
        }
    }

    pub fn take_first(&mut self, is_meant: impl Fn(&Case) -> bool) -> Option<Case> {
        self.0.iter_mut().find_map(|line| {
            let index = line.fresh.iter().position(&is_meant);
            index
                .and_then(|index| line.fresh.remove(index))
                .or_else(|| line.later.take_first(&is_meant))
        })
    }

    /// The line whose first payment is the oldest but for those before this one in that order.
    pub fn next_oldest(&self, before: Option<(Moment, usize)>) -> Option<(Moment, usize)> {
        let first =
            |(index, line): (usize, &Line)| Some((line.fresh.front()?.payment.accepted, index));
        let keys = self.0.iter().enumerate().filter_map(first);
        keys.filter(|key| Some(*key) > before).min()
    }
}

impl Line {
    /// The processors that its payments may go to, but for how far they reach.
    pub fn order(&self) -> &[Processor] {
        self.order.as_slice()
    }

    /// To its place by age: patience is measured on the oldest.
    pub fn push(&mut self, case: Case) {
        let (line, accepted) = (&mut self.fresh, case.payment.accepted);
        if line.back().is_none_or(|last| last.payment.accepted <= accepted) {
            return line.push_back(case);
        }
        let place = line.partition_point(|other| other.payment.accepted <= accepted);
        line.insert(place, case);
    }
}
