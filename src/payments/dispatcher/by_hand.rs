//! What an operator decides about a payment that is here. Goes through all of them: for people, not
//! for programs.

use super::*;

/// Where a payment is, as far as that matters to who decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Nowhere,
    /// No attempt is open.
    Free,
    /// Nor here; but somebody else may have driven it, and its processors are asked about it.
    Unverified,
    /// What became of its attempt is not known, and no request to book it is under way.
    InDoubt,
    /// A request to book it is under way.
    Posted,
    /// Somebody else drives it.
    Disowned,
}

impl Dispatcher {
    pub fn held(&self, id: PaymentId) -> Held {
        if self.is_disowned(id) {
            return Held::Disowned;
        }
        let is_to_verify = |case: &Case| self.verifies_all || case.payment.verify;
        let free = |case: &Case| if is_to_verify(case) { Held::Unverified } else { Held::Free };
        let flight = self.flights.iter().flatten().find(|it| it.is_of(id));
        if let Some(flight) = flight {
            return match (flight.look, flight.open) {
                (None, _) => Held::Posted,
                (Some(_), Some(_)) => Held::InDoubt,
                (Some(_), None) => free(&flight.case),
            };
        }
        let of = |case: &Case| case.payment.id == id;
        let unverified = self.unverified.iter().flat_map(Agenda::iter).find(|it| of(&it.case));
        let in_doubt = unverified.is_some_and(|it| it.open.is_some())
            || self.doubts().flat_map(Agenda::iter).any(|(case, _)| of(case));
        if in_doubt {
            return Held::InDoubt;
        }
        let mut waiting = self.lines.iter().chain(self.refused.iter().flat_map(Agenda::iter));
        let case = unverified.map(|it| &it.case).or_else(|| waiting.find(|case| of(case)));
        case.map_or(Held::Nowhere, free)
    }

    /// Lets go of a payment that is over, unless a request to book it is under way. What is being
    /// asked about it counts for nothing any more. False if it is not here.
    pub fn let_go(&mut self, id: PaymentId) -> bool {
        let case = self.take_out(id);
        self.held -= usize::from(case.is_some());
        case.is_some()
    }

    /// Its attempt was not booked, and never will be: the payment is free. False if it is not here.
    pub fn release_by_hand(&mut self, id: PaymentId) -> bool {
        let Some((case, open)) = self.take_out(id) else { return false };
        open.iter().for_each(|open| self.give_back(&case, open));
        self.requeue(Case::new(case.payment));
        true
    }

    /// With the attempt whose outcome is not known.
    fn take_out(&mut self, id: PaymentId) -> Option<(Case, Option<Open>)> {
        let taken = match self.held(id) {
            Held::Free | Held::Unverified | Held::InDoubt => {
                self.take_flown(id).or_else(|| self.take_waiting(id))
            }
            Held::Nowhere | Held::Posted | Held::Disowned => None,
        };
        self.unknown.remove(&id);
        taken
    }

    fn take_flown(&mut self, id: PaymentId) -> Option<(Case, Option<Open>)> {
        let flight = self.flights.iter_mut().flatten().find(|it| it.is_of(id))?;
        flight.purged = true;
        Some((flight.case.clone(), flight.open))
    }

    fn take_waiting(&mut self, id: PaymentId) -> Option<(Case, Option<Open>)> {
        let of = |case: &Case| case.payment.id == id;
        let refused = &mut self.refused;
        let free = self.lines.take_first(of);
        if let Some(case) = free.or_else(|| refused.iter_mut().find_map(|it| it.take_first(of))) {
            return Some((case, None));
        }
        for agenda in &mut self.unverified {
            if let Some(it) = agenda.take_first(|it| of(&it.case)) {
                self.unverified_doubts -= usize::from(it.open.is_some());
                return Some((it.case, it.open));
            }
        }
        let places = [&mut self.doubts, &mut self.absent, &mut self.declined, &mut self.again];
        let found = places.into_iter().flatten().find_map(|it| it.take_first(|(case, _)| of(case)));
        found.map(|(case, open)| (case, Some(open)))
    }
}

impl Flight {
    fn is_of(&self, id: PaymentId) -> bool {
        self.case.payment.id == id && !self.purged
    }
}
