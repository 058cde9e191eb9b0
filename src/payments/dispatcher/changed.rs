//! What changes for all payments at once: which processors they may go to, and on which terms.

use super::*;

impl Dispatcher {
    /// What each processor takes, and for how much.
    pub fn offers(&self) -> &Offers {
        &self.policy.offers
    }

    /// Which processors payments of this instance may be sent to from now on.
    pub fn set_reach(&mut self, reach: Reach) {
        if std::mem::replace(&mut self.reach, reach) != reach {
            self.place_anew();
        }
    }

    /// The terms of the same processors from now on. What was used up of a limit stays so; what is in
    /// flight, or in doubt, ends where it is.
    pub fn set_offers(&mut self, offers: Offers) {
        if std::mem::replace(&mut self.policy.offers, offers) == offers {
            return;
        }
        for processor in offers.processors() {
            let index = processor.index();
            let limits = offers.limits(index);
            self.budgets[index] = self.budgets[index].limited(&limits);
            self.observed[index].set_window_max(limits.concurrency as usize);
        }
        let (mut fresh, later) = std::mem::take(&mut self.lines).into_parts();
        // Each goes to the end of its line.
        fresh.sort_by_key(|case| case.payment.accepted);
        fresh.into_iter().for_each(|case| self.requeue(case));
        later.into_iter().for_each(|(due, case)| self.place_later(case, due));
        self.place_anew();
    }

    /// Those whose place depends on where they may go.
    fn place_anew(&mut self) {
        for processor in self.policy.offers.processors() {
            let refused: Vec<_> = self.refused[processor.index()].take().collect();
            refused.into_iter().for_each(|(due, case)| self.place_later(case, due));
            let [absent, again] = [&mut self.absent, &mut self.again];
            let postable = absent[processor.index()].take().chain(again[processor.index()].take());
            for (due, (case, open)) in postable {
                self.place_absent(case, open, due);
            }
        }
    }
}
